"""The proxy before a running service, where nginx is installed: what it passes on, and what it keeps away."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from rankone.model.bundle import Bundle
from tests.docker.files import ROOT, services
from tests.services import Process, Start, start

__all__ = ["start"]

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

Proxy = Callable[..., int]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """Starts the proxy of docker-compose.yml before a service on this machine; returns its port."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(process: Process, **variables: str) -> int:
        port, service = free_port(), services(**variables)["proxy"]
        (tmp_path / "conf.d").mkdir()
        for mounted in service["volumes"]:
            source, target, _ = mounted.split(":")
            text = (ROOT / source).read_text(encoding="utf-8")
            text = re.sub(r"\$\{(\w+)\}", lambda found: service["environment"][found[1]], text)  # as the image does
            for here, there in (
                (" /tmp/", f" {tmp_path}/"),
                ("/etc/nginx/conf.d", f"{tmp_path}/conf.d"),
                ("listen 8080", f"listen 127.0.0.1:{port}"),
                ("rankone:8000", f"127.0.0.1:{process.port}"),
            ):
                text = text.replace(here, there)
            name = target.removeprefix("/etc/nginx/").removesuffix(".template")
            path = tmp_path / name.replace("templates/", "conf.d/")
            path.write_text(text, encoding="utf-8")
        options = ["-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;"]
        started.append(subprocess.Popen(["nginx", *options]))
        deadline = time.monotonic() + 10
        while not is_open(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return port

    yield start_one
    for nginx in started:
        nginx.terminate()
        nginx.wait(10)


def test_requests_and_answers_pass_and_what_is_too_much_is_a_problem(
    start: Start, tiny: Bundle, images: list[bytes], proxy: Proxy
) -> None:
    process = start(tiny.path)
    process.ready().close()
    port = proxy(process, RANKONE_PROXY_RATE="1", RANKONE_PROXY_BURST="4")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        answer = http.post("/embed", content=images[0], headers={"content-type": "image/png"})
        assert (answer.status_code, answer.json()["dim"]) == (200, 10_000)
        assert http.post("/embed", content=b"x" * 5_000_000, headers={"content-type": "image/png"}).status_code == 415
        offer = {
            "connection": "Upgrade, HTTP2-Settings",
            "upgrade": "h2c",
            "http2-settings": "AAMAAABkAARAAAAAAAIAAAAA",
        }
        made = http.put(
            "/indexes/made", json={"kind": "compact"}, headers=offer
        )  # as `curl --http2` and Java's client do
        assert (made.status_code, made.json()["kind"]) == (201, "compact")
        refused = [http.get("/healthz") for _ in range(5)][-1]
        assert (refused.status_code, refused.json()["status"]) == (429, 429)
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/problem+json"


def test_half_a_header_is_kept_from_the_service_and_a_service_that_is_gone_is_503(
    start: Start, tiny: Bundle, proxy: Proxy
) -> None:
    process = start(tiny.path)
    process.ready().close()
    port = proxy(process, RANKONE_PROXY_TIMEOUT="1s")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-")
        started = time.monotonic()
        while half.recv(4096):  # it may say 408
            pass
        assert time.monotonic() - started < 5
    process.end()
    gone = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
    assert (gone.status_code, gone.json()["status"], gone.headers["retry-after"]) == (503, 503, "5")
