"""Adds images to a service, and counts what became of them; for docker/verify.sh: load.py URL KEY ACTION [FILE].

Actions:
    found: adds one image and finds it again.
    add: adds images until the service goes away; FILE gets the ids that it acknowledged, FILE.begun is there
        when it has some.
    fill: adds images until the disk is full; then searches.
    count: prints how many items there are, and checks that all of FILE are.
"""

from __future__ import annotations

import io
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from rankone.client import Client

_CLIENTS = 4
_MOST_S = 60.0
_BEGUN = 20
"""Acknowledged items after which the load counts as such; FILE.begun is there from then on."""


def picture(seed: int) -> bytes:
    """A JPEG of noise."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (96, 96, 3), np.uint8)).save(file, "jpeg")
    return file.getvalue()


class Load:
    """Clients that each add one image after another until they are stopped."""

    def __init__(self, url: str, key: str, file: Path, ends_with: int) -> None:
        self.file, self.url, self.headers, self.ends_with = file, url, {"Authorization": f"Bearer {key}"}, ends_with
        self.acknowledged, self.statuses = file.read_text().split() if file.exists() else [], Counter[int]()
        self.is_over = threading.Event()

    def run(self) -> None:
        """Returns when the service answers `ends_with`, or after a minute."""
        threads = [threading.Thread(target=self._add, args=(number,)) for number in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        self.is_over.wait(_MOST_S)
        self.is_over.set()
        for thread in threads:
            thread.join()

    def _add(self, number: int) -> None:
        image, start = picture(number), time.time_ns()
        with httpx.Client(base_url=self.url, headers=self.headers, timeout=70, trust_env=False) as http:
            for count in range(1_000_000):
                if self.is_over.is_set():
                    return
                item = f"{start}-{number}-{count}"
                data = {"items": f'[{{"id": "{item}"}}]'}
                try:
                    status = http.post("/indexes/default/items", data=data, files={"images": image}).status_code
                except httpx.TransportError:
                    status = 0
                self.statuses[status] += 1
                if status == 201:
                    self.acknowledged.append(item)
                    if self.statuses[201] == _BEGUN:
                        self.file.with_suffix(".begun").touch()
                elif status == self.ends_with:
                    self.is_over.set()


def main() -> None:
    """Does what the command line says."""
    url, key, action, *files = sys.argv[1:]
    file = Path(files[0]) if files else None
    with Client(url, key=key) as client:
        if action == "found":
            client.add([picture(1)], ["found"])
            ((best,),) = client.search([picture(1)], k=1)
            assert best.id == "found", best
            assert best.score > 0.999, best
            print(f"  found through the proxy: {best.id}, score {best.score:.4f}")
        elif action == "count":
            if file is not None:
                ids = {item.id for item in client.items()}
                lost = set(file.read_text().split()) - ids
                assert not lost, f"{len(lost)} acknowledged items are lost"
            print(client.count() if file is None else f"  {len(ids)} items, none lost")
        else:
            assert file is not None
            load = Load(url, key, file, ends_with={"add": 503, "fill": 507}[action])
            load.run()
            file.write_text("\n".join(load.acknowledged))
            allowed = {"add": {201, 429, 503}, "fill": {201, 429, 507}}[action]
            print(f"  statuses {dict(load.statuses)}")
            assert set(load.statuses) <= allowed, "an answer that is none"
            assert load.statuses[201] > 10, "no load"
            assert load.ends_with in load.statuses, f"never {load.ends_with}"
            if action == "fill":
                assert client.search([picture(1)], k=1)[0], "nothing is found on a full disk"
                print("  and the full index still answers searches")


if __name__ == "__main__":
    main()
