"""Networks without an end and pipes that nobody writes to, at the size that users run: the default network at 448 x 448.

python -m tests.service.hangs [--bundle DIR]
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.bundles import bundle_of, jpegs
from rankone.client import Client
from rankone.model.bundle import MANIFEST, ONNX, Bundle, seal, staged

_ROUNDS: Final = 1 << 62
_DEADLINE_S: Final = 900.0
_SERVE: Final = (sys.executable, "-m", "rankone", "serve")


def add_endless_loop(model: onnx.ModelProto, *, only_if_white: bool = False) -> None:
    """Has the embedding go through 2^62 rounds of a loop that changes nothing, always or for batches of white images."""
    for node in model.graph.node:
        node.output[:] = ["once" if output == "embedding" else output for output in node.output]
    names = [("round", TensorProto.INT64), ("go", TensorProto.BOOL), ("before", TensorProto.FLOAT)]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["before"], ["after"])],
        "endless",
        [helper.make_tensor_value_info(name, kind, None if name == "before" else []) for name, kind in names],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    for name, value in (("endless", np.int64(_ROUNDS)), ("none", np.int64(0)), ("bright", np.float32(0.5))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    rounds = "endless"
    if only_if_white:  # its darkest pixel is brighter than the mean that preprocessing subtracts
        rounds = "rounds"
        model.graph.node.append(helper.make_node("ReduceMin", ["images"], ["darkest"], keepdims=0))
        model.graph.node.append(helper.make_node("Greater", ["darkest", "bright"], ["is_white"]))
        model.graph.node.append(helper.make_node("Where", ["is_white", "endless", "none"], ["rounds"]))
    model.graph.node.append(helper.make_node("Loop", [rounds, "", "once"], ["embedding"], body=body))


def endless(good: Bundle, path: Path, *, only_if_white: bool = False) -> Bundle:
    """A copy of a bundle whose ONNX network has such a loop. Its version is the name of its folder."""
    model = onnx.load(good.path / ONNX)
    add_endless_loop(model, only_if_white=only_if_white)
    onnx.checker.check_model(model)
    with staged(path) as stage:
        onnx.save(model, stage / ONNX)
        return seal(stage, good.manifest.model_copy(update={"version": path.name, "created": datetime.now(UTC)}), path)


def with_pipe(good: Bundle, path: Path, name: str) -> Path:
    """A copy of a bundle in which one of the files is a pipe."""
    path.mkdir(parents=True)
    for file in (MANIFEST, ONNX):
        if file == name:
            os.mkfifo(path / file)
        else:
            (path / file).write_bytes((good.path / file).read_bytes())
    return path


def _refusal(folder: Path, bundle: Path, *flags: str) -> None:
    """How the service ends whose only bundle never loads."""
    command = [*_SERVE, "--bundle", str(bundle), "--data", str(folder / "index"), *flags]
    start = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    took_s, last = time.monotonic() - start, ended.stderr.strip().splitlines()[-1]
    print(f"serve --bundle {bundle.name}: status {ended.returncode} after {took_s:.1f} s: {last}", flush=True)


def _hang(url: str) -> None:
    """A running service: loading what never loads, then a white image that hangs the engine."""
    with Client(url) as client:
        client.wait_until_ready(timeout_s=_DEADLINE_S)
    for entry in httpx.get(f"{url}/models").json()["models"]:
        print(f"{entry['model']} {entry['version']}: {entry['state']}, {entry['detail']}", flush=True)
        if entry["state"] == "available":
            loading = _asking(url, f"/models/{entry['model']}/{entry['version']}/load", b"")
            _ask(url, "/embed", jpegs(1)[0])
            loading.join()
    white = io.BytesIO()
    Image.new("RGB", (640, 480), "white").save(white, "JPEG")
    start = time.monotonic()
    hanging = _asking(url, "/embed", white.getvalue())
    time.sleep(1)
    waiting = _asking(url, "/embed", jpegs(1)[0])
    while (answer := httpx.get(f"{url}/healthz")).status_code == 200:
        time.sleep(0.1)
        assert time.monotonic() < start + _DEADLINE_S
    print(
        f"/healthz: {answer.status_code} after {time.monotonic() - start:.1f} s: {answer.json()['detail']}", flush=True
    )
    hanging.join()
    waiting.join()


def _asking(url: str, path: str, body: bytes) -> threading.Thread:
    thread = threading.Thread(target=_ask, args=(url, path, body))
    thread.start()
    return thread


def _ask(url: str, path: str, body: bytes) -> None:
    start = time.monotonic()
    answer = httpx.post(
        url + path, content=body, headers={"content-type": "image/jpeg"} if body else {}, timeout=_DEADLINE_S
    )
    print(
        f"{path}: {answer.status_code} after {time.monotonic() - start:.1f} s, {answer.json().get('detail')}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, bundle_of(given.bundle) as good:
        folder = Path(name)
        never = endless(good, folder / "all" / "endless").path
        pipes = [with_pipe(good, folder / "all" / f"{file}-is-a-pipe", file) for file in (MANIFEST, ONNX)]
        for bundle in (never, *pipes):
            _refusal(folder, bundle, "--load-timeout-s", "60")
        endless(good, folder / "all" / "white", only_if_white=True)
        command = [*_SERVE, "--bundles", str(folder / "all"), "--data", str(folder / "index")]
        with subprocess.Popen([*command, "--load-timeout-s", "300"]) as service:
            try:
                _hang("http://127.0.0.1:8000")
            finally:
                start = time.monotonic()
                service.terminate()
        print(f"SIGTERM: status {service.returncode} after {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
