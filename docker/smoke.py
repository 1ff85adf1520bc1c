"""Run inside an image beside its service: the container is as closed as it should be, and an image is embedded and found."""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from rankone.client import Client

if os.getuid() == 0:
    sys.exit("this runs as root")
if not os.statvfs("/").f_flag & os.ST_RDONLY:
    sys.exit("the root can be written to")
if any(os.access(path, os.W_OK) for path in ("/", "/opt", "/opt/project", "/opt/rankone", "/etc", "/bundles")):
    sys.exit("more can be written to than the volumes")

picture = Path(tempfile.mkdtemp()) / "mandelbrot.jpg"
Image.effect_mandelbrot((320, 240), (-2.2, -1.2, 1.0, 1.2), 100).save(picture)
with Client(f"http://127.0.0.1:{os.environ['RANKONE_PORT']}", key=os.environ.get("KEY")) as client:
    info = client.info()
    (embedding,) = client.embed([picture])
    length = float(np.linalg.norm(embedding))
    if not np.isclose(length, 1, atol=1e-3):
        sys.exit(f"an embedding of length {length}")
    client.add([picture], ["mandelbrot"])
    ((found,),) = client.search([picture], k=1)
    if found.id != "mandelbrot" or found.score < 0.999:
        sys.exit(f"the image that was added is not what is found: {found}")

print(
    f"  user {os.getuid()}, root read-only, {info['engine']} on {info['provider']}, bundle {info['model']} {info['version']}"
)
print(f"  POST /embed: {len(embedding):,} numbers of length {length:.4f}, the first {embedding[:3].tolist()}")
print(f"  added and found again: {found.id}, score {found.score:.4f}")
