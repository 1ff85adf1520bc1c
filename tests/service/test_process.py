"""The service as a process of its own, with torch unimportable: what only a process shows."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rankone.client import ServiceError
from rankone.model.bundle import Bundle
from rankone.service import server
from rankone.service.keys import add_key
from rankone.service.lingering import MOMENT_S
from rankone.service.settings import Settings
from rankone.training.data import DataSet
from tests.services import WITHOUT_TORCH, Start


def test_it_serves_onnx_without_torch_and_survives_being_killed(
    start: Start, images: list[bytes], photos: DataSet, bundle: Bundle
) -> None:
    """All routes through the real client; killed with -9 behind an acknowledged add; everything there after a restart."""
    first = start()
    with first.ready() as client:
        assert client.info()["fingerprint"] == bundle.fingerprint
        embeddings = client.embed(images)
        assert embeddings.shape == (16, 10_000)
        best = [row[0].label for row in client.classify(list(photos.test.paths), top_k=1)]
        assert np.mean([a == photos.classes[b] for a, b in zip(best, photos.test.labels, strict=True)]) >= 0.75
        ids = client.add(images[:6], ids=list("abcdef"), metadata=[{"n": n} for n in range(6)])
        assert ids == list("abcdef")
        assert client.delete(["b"]) == 1
    first.end(signal.SIGKILL)
    second = start()
    with second.ready() as client:
        assert client.count() == 5
        hits = client.search(images[2:3], k=2)[0]
        assert (hits[0].id, hits[0].metadata) == ("c", {"n": 2})
        assert hits[0].score == pytest.approx(1, abs=1e-3)
    status, printed = second.end(signal.SIGTERM)
    assert status in (0, -signal.SIGTERM), printed
    assert "Traceback" not in printed


def test_the_block_on_torch_is_real() -> None:
    """The other test would prove nothing if torch could be imported under it."""
    code = WITHOUT_TORCH.replace("main()", "import torch").replace(
        "from rankone.__main__ import import torch", "import torch"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: torch is not to be had here" in ended.stderr


def test_the_torchscript_engine_says_that_it_needs_torch(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKONE_ENGINE", "torchscript")
    flags = ["serve", "--bundle", str(bundle.path), "--data", str(tmp_path), "--port", "0"]
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    ended = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *flags], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "the torchscript engine needs torch: install it, or set RANKONE_ENGINE=onnx" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_changed_bundle_stops_the_start_with_a_sentence(start: Start, tiny: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny.path, tmp_path / "copy"))
    with (copy / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"changed")
    process = start(copy)
    process.popen.wait(60)
    status, printed = process.end()
    assert status == 2
    assert "model.onnx is not the file its manifest describes" in printed
    assert "Traceback" not in printed


def test_a_body_that_never_comes_does_not_keep_it_up(start: Start, tiny: Bundle) -> None:
    process = start(tiny.path, receive_timeout_s=2)
    process.ready().close()
    with socket.create_connection(("127.0.0.1", process.port)) as half:
        half.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nabc")
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(timeout=30) is not None


def test_a_second_service_on_the_same_index_is_refused(start: Start, tiny: Bundle) -> None:
    first = start(tiny.path)
    first.ready().close()
    second = start(tiny.path)
    second.popen.wait(60)
    status, printed = second.end()
    assert (status, "another process is using it" in printed) == (2, True), printed


def test_a_proxy_of_the_environment_does_not_come_between(
    start: Start, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(tiny.path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with process.ready() as client:
        assert client.count() == 0


def test_a_client_without_a_service_says_where_it_looked(tmp_path: Path) -> None:
    from rankone.client import Client

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(ServiceError, match=f"no service answers at .*:{port}"),
    ):
        client.info()
    assert Settings().host == "127.0.0.1"


def test_an_early_answer_reaches_a_client_that_sends_all_before_it_reads(
    start: Start, tiny: Bundle, tmp_path: Path
) -> None:
    """Five megabytes behind headers that are refused, on a connection that ends with the answer."""
    add_key(tmp_path / "keys.json", "other", frozenset({"read"}))
    process = start(tiny.path, keys=tmp_path / "keys.json")
    process.ready().close()
    request = b"POST /embed HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5000000\r\n\r\n"
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", process.port), timeout=10) as bare:
            bare.sendall(request + bytes(5_000_000))
            head, _, body = bare.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 ")
        assert json.loads(body)["status"] == 401


def test_an_early_answer_waits_for_a_client_that_sends_slowly(start: Start, tiny: Bundle) -> None:
    """For longer than a moment, without one in which nothing comes."""
    process = start(tiny.path)
    process.ready().close()
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as bare:
        bare.sendall(b"DELETE /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(10):
            time.sleep(MOMENT_S / 4)
            bare.sendall(bytes(100))
        assert bare.makefile("rb").read().startswith(b"HTTP/1.1 405 ")


def test_a_refused_body_that_ends_after_the_signal_ends_its_connection(start: Start, tiny: Bundle) -> None:
    process = start(tiny.path, grace_s=60, drain_s=0)
    process.ready().close()
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as bare:
        bare.sendall(b"DELETE /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        answer = b""
        while not answer.endswith(b"}"):
            answer += bare.recv(4096)
        assert answer.startswith(b"HTTP/1.1 405 ")
        process.popen.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionRefusedError):
            while True:  # until nothing listens, and every connection has been told
                socket.create_connection(("127.0.0.1", process.port)).close()
        bare.sendall(b"cd")
        assert bare.makefile("rb").read() == b""
        assert process.popen.wait(timeout=10) is not None


def test_half_of_a_next_request_does_not_endanger_the_answer_to_the_one_before(
    start: Start, tiny: Bundle, images: list[bytes]
) -> None:
    """Somebody else wants room while the first is in work."""
    process = start(tiny.path, max_connections=1, batch_window_ms=100)
    process.ready().close()
    request = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(
        images[0]
    )
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as bare:
        bare.sendall(request + images[0] + b"POST /embed HTTP/1.1\r\nHo")
        time.sleep(0.03)
        with socket.create_connection(("127.0.0.1", process.port)):
            assert bare.recv(12) == b"HTTP/1.1 200"


def test_a_connection_that_rests_is_not_closed_before_its_time(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn has a time of its own for that, five seconds, and an error if it is met while a client sends."""
    configs = []
    monkeypatch.setattr(server.Server, "run", lambda self: configs.append(self.config))
    for name in ("_allow_many_connections", "logs.configure"):
        monkeypatch.setattr(f"rankone.service.server.{name}", lambda *_: None)
    server.serve(Settings(bundle=tiny.path, receive_timeout_s=42.5))
    assert configs[0].timeout_keep_alive > 42.5
