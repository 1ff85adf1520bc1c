"""The tests. Whatever they import comes after this."""

import os

# torch and faiss bring an OpenMP runtime each: on few cores, threads of one that spin while they wait keep the other off
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
