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
import uvicorn

from rankone.client import ServiceError
from rankone.model.bundle import Bundle
from rankone.service import server
from rankone.service.app import create_app
from rankone.service.auth.keys import add_key
from rankone.service.bundles import ServiceState
from rankone.service.settings import Settings
from rankone.training.data import DataSet
from tests.services import WITHOUT_TORCH, Start, fail


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


@pytest.mark.slow
def test_an_index_of_onnx_is_searched_by_the_engine_that_auto_takes(
    start: Start, images: list[bytes], bundle: Bundle
) -> None:
    """Whichever that is here; and the trial is made again where a bundle is loaded while it serves."""
    first = start(engine="onnx")
    with first.ready() as client:
        client.add(images[:6], ids=list("abcdef"))
    first.end()
    second = start(engine="auto")
    with second.ready() as client:
        client.load_model(bundle.manifest.name, bundle.manifest.version)
        info = client.info()
        found = f"engine auto: {info['engine']} in {info['precision']}, as an image takes onnx float32 "
        assert info["engine_choice"].startswith(found)
        assert [hits[0].id for hits in client.search(images[:6], k=1)] == list("abcdef")
        assert min(hits[0].score for hits in client.search(images[:6], k=1)) >= 0.999
    status, printed = second.end()
    assert status in (0, -signal.SIGTERM), printed
    assert printed.count("INFO rankone: engine auto: ") == 2  # the second may differ from the first: both are measured
    assert "WARNING" not in printed


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
    assert printed.count("model.onnx is not the file its manifest describes") == 1
    for word in ("running", "started", "complete", "serving", "Traceback"):
        assert word not in printed, printed


def test_a_body_that_never_comes_does_not_keep_it_up(start: Start, tiny: Bundle) -> None:
    process = start(tiny.path, receive_timeout_s=2)
    process.ready().close()
    with socket.create_connection(("127.0.0.1", process.port)) as half:
        half.sendall(
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\nabc"
        )
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


def answer(connection: socket.socket) -> bytes:
    """What comes until the connection is closed, or a JSON object ends."""
    received = b""
    while not received.endswith(b"}") and (part := connection.recv(4096)):
        received += part
    return received


def test_an_early_answer_reaches_a_client_that_sends_all_before_it_reads(
    start: Start, tiny: Bundle, tmp_path: Path
) -> None:
    """Five megabytes behind headers that are refused."""
    add_key(tmp_path / "keys.json", "other", frozenset({"read"}))
    process = start(tiny.path, keys=tmp_path / "keys.json")
    process.ready().close()
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as bare:
        for _ in range(3):
            bare.sendall(
                b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n" + bytes(5_000_000)
            )
            assert answer(bare).startswith(b"HTTP/1.1 401 ")


def test_a_body_that_does_not_arrive_in_time_is_answered_408(start: Start, tiny: Bundle) -> None:
    """As a problem, and the connection ends: nobody knows whether the rest of the body would still come."""
    process = start(tiny.path, receive_timeout_s=1)
    process.ready().close()
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    for framing in (b"Content-Length: 100\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"):
        with socket.create_connection(("127.0.0.1", process.port), timeout=10) as bare:
            bare.sendall(head + framing)
            headers, _, body = answer(bare).partition(b"\r\n\r\n")
            assert headers.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in headers
            assert json.loads(body)["detail"] == "the body of the request did not arrive within 1 s"
            assert bare.recv(1) == b""
    with process.ready() as client:
        assert client.count() == 0


def test_more_connections_than_may_be_are_answered_503(start: Start, tiny: Bundle) -> None:
    process = start(tiny.path, max_connections=3)
    process.ready().close()
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.ExitStack() as stack:
        *idle, last, over = [
            stack.enter_context(socket.create_connection(("127.0.0.1", process.port), timeout=10)) for _ in range(4)
        ]
        over.sendall(request)
        assert over.recv(12) == b"HTTP/1.1 503"
        over.close()
        time.sleep(0.2)
        last.sendall(request)
        assert last.recv(12) == b"HTTP/1.1 200"
        assert len(idle) == 2


def test_a_connection_opened_before_the_signal_is_answered_after_it(start: Start, tiny: Bundle) -> None:
    process = start(tiny.path, drain_s=2)
    process.ready().close()
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as bare:
        process.popen.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        bare.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        found = answer(bare)
        assert found.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in found
        assert bare.recv(1) == b""
    assert process.popen.wait(timeout=10) is not None


def test_a_connection_that_rests_is_not_closed_before_its_time(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn's own time for that is five seconds."""
    configs = []

    def run(self: server.Server, listeners: list[socket.socket]) -> None:
        configs.append(self.config)
        for listener in listeners:
            listener.close()

    monkeypatch.setattr(server.Server, "run", run)
    for name in ("_allow_many_connections", "logs.configure"):
        monkeypatch.setattr(f"rankone.service.server.{name}", lambda *_: None)
    server.serve(Settings(bundle=tiny.path, port=0, receive_timeout_s=42.5))
    assert configs[0].timeout_keep_alive > 42.5


def test_only_the_second_signal_ends_it_at_once_also_when_it_is_ending_by_itself(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("rankone.service.server.os._exit", ended.append)
    settings = Settings(bundle=tiny.path)
    ending = server.Server(uvicorn.Config(create_app(settings, fail)), ServiceState(), drain_s=60)
    ending.should_exit = True  # as when no bundle can be loaded
    ending.handle_exit(signal.SIGTERM, None)
    assert ended == []
    ending.handle_exit(signal.SIGTERM, None)
    assert ended == [128 + signal.SIGTERM]
