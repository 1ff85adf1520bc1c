"""Ends with status 0 where the service in this container is ready to answer; Docker asks it every few seconds."""

import os
import sys
import urllib.request

port = os.environ.get("RANKONE_PORT", "")
url = f"http://127.0.0.1:{port if port.isdecimal() else 8000}/readyz"  # Kubernetes may set it to tcp://…
try:
    with urllib.request.urlopen(url, timeout=4) as response:
        print(response.read().decode())
except OSError as error:
    sys.exit(f"{url}: {error}")
