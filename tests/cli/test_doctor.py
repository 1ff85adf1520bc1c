"""`rankone doctor` as a command: its output, its exit status, and who answers at an address."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import pytest

from rankone.__main__ import run
from rankone.cli.doctor import ask, is_local
from rankone.model.bundle import Bundle
from rankone.model.findings import PURPOSES, extras
from tests.services import Process


class Other(BaseHTTPRequestHandler):
    """A program that is not ours."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"info": {"title": "another"}}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def examined(capsys: pytest.CaptureFixture[str], *flags: object) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON."""
    try:
        status = run("doctor", [*map(str, flags), "--json"])
    except SystemExit as ended:
        status = int(str(ended.code))
    return status, json.loads(capsys.readouterr().out)


def named(body: dict[str, Any], area: str) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in body["findings"] if finding["area"] == area}


def test_a_sound_installation_ends_with_0(
    tiny: Bundle, tmp_path: Path, free: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKONE_MAX_QUEUE", "100")
    monkeypatch.setenv("RANKONE_KEY", "r1_secret")
    monkeypatch.delenv("RANKONE_ENGINE")
    flags = ("--bundle", tiny.path, "--port", free, "--engine", "onnx")
    status, body = examined(capsys, *flags)
    assert (status, body["sound"]) == (0, True), body
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(body) == set(
        re.findall(r"(?m)^- `(\w+)`", page.partition("object for programs:\n\n")[2].partition("\n\n")[0])
    )
    assert all(set(one) == {"area", "name", "state", "says", "mend"} for one in body["findings"])
    assert body["versions"]["torch"] == version("torch")
    assert body["variables"] == {"RANKONE_KEY": "(set)", "RANKONE_MAX_QUEUE": "100"}
    assert (body["settings"]["port"], body["settings"]["max_queue"]) == (free, 100)
    assert named(body, "ports")[f"127.0.0.1:{free}"]["says"] == "free"
    assert named(body, "training")["device"]["says"].partition(":")[0] in ("cpu", "cuda")
    assert list(tmp_path.iterdir()) == []
    assert run("doctor", list(map(str, flags))) == 0
    printed = capsys.readouterr().out
    assert "r1_secret" not in printed
    assert printed.endswith("everything is sound\n")
    assert "rankone[heic]: HEIC images; missing: nothing" in printed


def test_every_problem_comes_with_what_to_do_and_status_1(
    tmp_path: Path, other: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKONE_BUNDEL", "x")
    monkeypatch.setenv("RANKONE_URL", "localhost:8000")
    status, body = examined(capsys, "--bundle", tmp_path / "nothing", "--port", other)
    wrong = {(one["area"], one["name"]): one for one in body["findings"] if one["state"] == "problem"}
    where = f"127.0.0.1:{other}"
    assert (status, set(wrong)) == (
        1,
        {("settings", "variable"), ("service", "bundle"), ("ports", where), ("client", "url")},
    )
    assert all(one["mend"] for one in wrong.values())
    assert "did you mean RANKONE_BUNDLE?" in wrong["settings", "variable"]["says"]
    assert "another process listens" in wrong["ports", where]["says"]
    with pytest.raises(SystemExit):
        run("doctor", ["--bundle", str(tmp_path / "nothing"), "--port", str(other)])
    printed = capsys.readouterr().out
    assert "4 problems" in printed
    assert all(one["mend"] in printed for one in wrong.values())


@pytest.mark.parametrize(
    ("flags", "variables", "words"),
    [
        ([], {"RANKONE_PORT": "abc"}, "RANKONE_PORT=abc: Input should be a valid integer"),
        (["--max-queue", "3"], {}, "max_queue (3) must hold a request of max_images (64)"),
    ],
)
def test_settings_that_cannot_be_read_are_a_problem_and_not_the_end(
    flags: list[str],
    variables: dict[str, str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    status, body = examined(capsys, *flags)
    assert (status, body["settings"]) == (1, None)
    assert words in named(body, "settings")["values"]["says"]
    assert body["versions"]["python"]


def test_a_service_that_runs_is_no_problem(tiny: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    process = Process(tiny.path, tmp_path / "index")
    try:
        process.ready().close()
        status, body = examined(capsys, "--bundle", tiny.path, "--data", tmp_path / "index", "--port", process.port)
    finally:
        process.close()
    assert status == 0, body
    where = f"127.0.0.1:{process.port}"
    assert named(body, "ports")[where]["says"] == f"rankone {version('rankone')} answers and is ready"
    assert named(body, "indexes")["folder"]["says"].endswith(f"is used by process {process.popen.pid}")
    assert named(body, "indexes")["default"]["state"] == "ok"


def test_only_this_machine_is_asked(other: int, free: int) -> None:
    assert ask(f"http://127.0.0.1:{other}") == {}
    assert ask(f"http://127.0.0.1:{free}") is None
    assert [is_local(host) for host in ("127.0.0.1", "::1", "[::1]", "localhost")] == [True] * 4
    for host in ("192.0.2.1", "example.org", "0.0.0.0"):
        assert not is_local(host)
        with pytest.raises(ValueError, match="not on this machine"):
            ask(f"http://{host}:{other}")


def test_every_extra_has_a_purpose_and_is_complete_here() -> None:
    found = {extra.name: extra for extra in extras()}
    assert set(found) == set(metadata("rankone").get_all("Provides-Extra") or ()) == set(PURPOSES)
    assert {name: extra.missing for name, extra in found.items() if extra.missing} == {}
