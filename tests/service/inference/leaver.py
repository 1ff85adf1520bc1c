"""A decode worker that closes its socket at the first image, and lives on."""

import socket
import sys
import time

from rankone.service.inference.decode_worker import READY, REPLY

link = socket.socket(fileno=int(sys.argv[2]))
link.sendall(REPLY.pack(READY, 0))
link.recv(1 << 20)
link.close()
time.sleep(60)
