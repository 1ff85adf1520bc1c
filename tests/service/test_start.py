"""How the service starts and listens: one sentence for what keeps it from starting, and nothing claims to be up too early."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn

from rankone.__main__ import run
from rankone.model.bundle import MANIFEST, Bundle, BundleError
from rankone.service import preflight, server
from rankone.service.auth.keys import KeyFileError
from rankone.service.bundle_files import check_paths
from rankone.service.bundles import ServiceState
from rankone.service.listening import CannotListen, listen, url_of
from rankone.service.settings import Settings
from tests.services import Start

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tiny: Bundle, tmp_path: Path) -> Path:
    shutil.copytree(tiny.path, tmp_path / "bundles" / "mine")
    return tmp_path / "bundles"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_bundle_named_by_the_wrong_setting_is_told_the_right_one(folder: Path) -> None:
    check_paths(Settings(bundle=folder / "mine"))
    check_paths(Settings(bundles=folder))
    with pytest.raises(BundleError, match=r"is no bundle, but a directory that holds mine: name it by --bundles"):
        check_paths(Settings(bundle=folder))
    with pytest.raises(
        BundleError, match=r"is a bundle, not a directory of them: name it by --bundle \(RANKONE_BUNDLE\)"
    ):
        check_paths(Settings(bundles=folder / "mine"))
    with pytest.raises(BundleError, match="not a bundle"):
        check_paths(Settings(bundle=folder / "nothing"))
    with pytest.raises(BundleError, match="cannot be listed"):
        check_paths(Settings(bundles=folder / "nothing"))
    (folder / "empty").mkdir()
    with pytest.raises(BundleError, match="holds no bundle"):
        check_paths(Settings(bundles=folder / "empty"))


def test_what_cannot_be_listened_on_is_said_with_what_to_do(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotListen, match=rf"another process listens on port {taken} of 127.0.0.1: end it"):
        listen("127.0.0.1", taken)
    with pytest.raises(CannotListen, match="192.0.2.9 is not an address of this machine"):
        listen("192.0.2.9", 0)
    with pytest.raises(CannotListen, match="host 'no such host' is not known"):
        listen("no such host", 0)

    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbid)
    with pytest.raises(CannotListen, match="may not listen on port 80"):
        listen("127.0.0.1", 80)


def test_every_address_of_a_host_has_the_same_port() -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in listen("localhost", 0)]
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
        assert url_of(listeners[0]).startswith("http://")


def test_what_keeps_it_from_starting_is_said_before_anything_else(
    tiny: Bundle, folder: Path, taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the command says it: one line, and the log has none."""
    assert run("serve", ["--bundle", str(tiny.path), "--port", str(taken)]) == 2
    assert capsys.readouterr().err.startswith(f"rankone: another process listens on port {taken} of 127.0.0.1: ")
    assert run("serve", ["--bundle", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("name it by --bundles (RANKONE_BUNDLES)")


def test_it_says_that_it_serves_when_it_does(start: Start, tiny: Bundle) -> None:
    process = start(tiny.path)
    process.ready().close()
    _, printed = process.end()
    loading, serving, *_ = printed.splitlines()
    assert loading == f"INFO rankone: loading; {process.url} answers 503 until then"
    assert serving.startswith("INFO rankone: serving tiny ")
    assert "uvicorn" not in printed.lower()


def test_a_check_loads_what_would_be_served_and_ends(
    tiny: Bundle, folder: Path, tmp_path: Path, taken: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    preflight.check(Settings(bundle=tiny.path, data=data, port=taken))
    assert not data.exists()
    (folder / "mine" / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="model.onnx is not the file"):
        preflight.check(Settings(bundles=folder))
    with pytest.raises(KeyFileError):
        preflight.check(Settings(bundle=tiny.path, keys=folder / "no-such-file"))
    with pytest.raises(preflight.InsecureBind):
        preflight.check(Settings(bundle=tiny.path, host="0.0.0.0"))
    assert (folder / "mine" / MANIFEST).exists()


async def test_while_it_ends_new_connections_are_neither_accepted_nor_refused(tiny: Bundle) -> None:
    """A refusal would be an error of the client's; a connection that waits finds the next service at this address. One that
    was opened before is still accepted."""
    (listener,) = listen("127.0.0.1", 0)
    address = listener.getsockname()
    served = await asyncio.start_server(lambda _, writer: writer.close(), sock=listener)
    ending = server.Server(uvicorn.Config("no:app"), ServiceState(), 0)
    ending.servers = [served]
    before = socket.create_connection(address, timeout=5)
    ending._refuse_new_connections()
    with pytest.raises(TimeoutError), socket.create_connection(address, timeout=0.3):
        pass
    before.settimeout(5)
    assert await asyncio.to_thread(before.recv, 1) == b""  # accepted, and closed by the server
    before.close()
    served.close()
