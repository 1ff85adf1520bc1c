"""Ends with status 0 where the service in this container is ready to answer; Docker asks it every few seconds."""

import os
import sys
import urllib.request

url = f"http://127.0.0.1:{os.environ.get('RANKONE_PORT', '8000')}/readyz"
try:
    with urllib.request.urlopen(url, timeout=4) as response:
        print(response.read().decode())
except OSError as error:
    sys.exit(f"{url}: {error}")
