"""Downloads against a server on this machine that breaks off, lies and refuses as real ones do."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rankone.training.data import DataError, load
from rankone.training.data.download import SOURCES, PublishedFile, download, fetch, is_unpacked, unpack
from tests.training.data.trees import mit67


@dataclass
class Server:
    """What it serves, how it behaves, and the `Range` of every request that it got."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    chunked: bool = False
    most: int | None = None
    """Bytes after which it hangs up."""
    requests: list[str | None] = field(default_factory=list)
    port: int = 0

    def source(self, name: str, md5: str | None = None) -> PublishedFile:
        return PublishedFile(f"http://127.0.0.1:{self.port}/{name}", md5)

    def publish(self, name: str, data: bytes) -> PublishedFile:
        self.files[name] = data
        return self.source(name, hashlib.md5(data, usedforsecurity=False).hexdigest())


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.requests.append(asked)
            self.close_connection = True
            data = server.files.get(self.path[1:])
            if data is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
            if start >= len(data) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.body(data[start:])

        def body(self, data: bytes) -> None:
            sent = data[: server.most]
            if server.chunked:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent))
                if len(sent) == len(data):
                    self.wfile.write(b"0\r\n\r\n")
            else:
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(served)) as http:
        served.port = http.server_address[1]
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        http.shutdown()
        thread.join()


def tar(entries: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def noise(size: int) -> bytes:
    """Bytes that gzip cannot make smaller."""
    return b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(size // 32))


def test_an_archive_is_fetched_checked_and_unpacked_once(server: Server, tmp_path: Path) -> None:
    source = server.publish("birds.tgz", tar({"birds/images.txt": b"1 a.jpg", "attributes.txt": b"1 curved"}))
    home = tmp_path / "data" / "birds"
    download("birds", home, {"birds": (source,)})
    assert (home / "birds" / "images.txt").read_bytes() == b"1 a.jpg"
    assert (home / "attributes.txt").read_bytes() == b"1 curved"
    assert len(server.requests) == 1
    (home / "birds.tgz").unlink()  # to save room
    download("birds", home, {"birds": (source,)})
    assert len(server.requests) == 1, "what is there is not fetched again, with or without its archive"
    (home / "attributes.txt").unlink()
    download("birds", home, {"birds": (source,)})
    assert (len(server.requests), (home / "attributes.txt").exists()) == (2, True)


@pytest.mark.parametrize("chunked", [False, True])
def test_what_broke_off_is_gone_on_with(server: Server, tmp_path: Path, chunked: bool) -> None:
    data = noise(200_000)
    source = server.publish("birds.bin", data)
    server.most, server.chunked = 70_000, chunked
    with pytest.raises(DataError, match="birds.bin cannot be fetched: .*The same command resumes the download"):
        fetch(source, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["birds.bin.part"], "never under the name of the whole"
    assert (tmp_path / "birds.bin.part").read_bytes() == data[:70_000]
    with pytest.raises(DataError):
        fetch(source, tmp_path)
    server.most = None
    assert fetch(source, tmp_path).read_bytes() == data
    assert server.requests == [None, "bytes=70000-", "bytes=140000-"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["birds.bin"]


def test_how_far_it_came_is_said(server: Server, tmp_path: Path) -> None:
    server.publish("birds.bin", noise(200_000))
    server.most = 70_000
    with pytest.raises(DataError, match="the connection broke off after 70,000 of 200,000 bytes"):
        fetch(server.source("birds.bin"), tmp_path)
    with pytest.raises(DataError, match="the connection broke off after 140,000 of 200,000 bytes"):
        fetch(server.source("birds.bin"), tmp_path)


def test_a_server_that_knows_no_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    data = noise(200_000)
    source = server.publish("birds.bin", data)
    server.most, server.ranges = 70_000, False
    with pytest.raises(DataError):
        fetch(source, tmp_path)
    server.most = None
    assert fetch(source, tmp_path).read_bytes() == data
    assert server.requests == [None, "bytes=70000-"]


def test_a_part_that_is_all_of_it_is_taken(server: Server, tmp_path: Path) -> None:
    """Ended after the last byte and before it got its name."""
    server.publish("birds.bin", b"all of it")
    (tmp_path / "birds.bin.part").write_bytes(b"all of it")
    assert fetch(server.source("birds.bin"), tmp_path).read_bytes() == b"all of it"
    assert server.requests == ["bytes=9-"]


def test_a_part_that_is_longer_than_the_file_is_another_file(server: Server, tmp_path: Path) -> None:
    server.publish("birds.bin", b"all of it")
    (tmp_path / "birds.bin.part").write_bytes(b"something else, longer")
    assert fetch(server.source("birds.bin"), tmp_path).read_bytes() == b"all of it"
    assert server.requests == ["bytes=22-", None]


def test_another_checksum_is_refused_and_the_file_removed(server: Server, tmp_path: Path) -> None:
    source = server.publish("birds.tgz", tar({"birds/1.jpg": b"1"}))
    server.files["birds.tgz"] += b"tampered with"
    with pytest.raises(DataError, match=f"its md5 is [0-9a-f]{{32}}, published is {source.md5}; it was removed"):
        download("birds", tmp_path, {"birds": (source,)})
    assert list(tmp_path.iterdir()) == []


def test_a_file_put_there_by_hand_is_checked_and_not_removed(server: Server, tmp_path: Path) -> None:
    data = tar({"birds/1.jpg": b"1"})
    source = server.publish("birds.tgz", data)
    path = tmp_path / "birds.tgz"
    path.write_bytes(data[:-1])
    with pytest.raises(
        DataError, match="birds.tgz: its md5 is .*; replace it, or remove it and it is fetched from http"
    ):
        download("birds", tmp_path, {"birds": (source,)})
    assert path.read_bytes() == data[:-1]
    path.write_bytes(data)
    download("birds", tmp_path, {"birds": (source,)})
    assert (tmp_path / "birds" / "1.jpg").exists()
    assert server.requests == []


def test_without_a_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        source = PublishedFile(f"http://127.0.0.1:{unused.getsockname()[1]}/birds.tgz")
        with pytest.raises(DataError) as raised:
            download("birds", tmp_path / "birds", {"birds": (source,)})
    for words in (source.url, "refused", "without a network, put birds.tgz into", str(tmp_path / "birds"), "by hand"):
        assert words in str(raised.value)
    assert list((tmp_path / "birds").iterdir()) == []


def test_a_file_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="birds.tgz cannot be fetched: HTTP Error 404"):
        fetch(server.source("birds.tgz"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_in_place_of_an_archive_is_refused(server: Server, tmp_path: Path) -> None:
    """No checksum is published of MIT's archive, so nothing else would tell."""
    server.files["birds.tar"] = b"<html>please log in to this network</html>"
    with pytest.raises(DataError, match="birds.tar is not an archive; remove it and download again"):
        download("birds", tmp_path, {"birds": (server.source("birds.tar"),)})
    assert [entry.name for entry in tmp_path.iterdir()] == ["birds.tar"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("damage", ["cut", "bit"])
def test_a_broken_archive_leaves_nothing_behind(tmp_path: Path, mode: str, damage: str) -> None:
    data = bytearray(tar({f"birds/{i}.jpg": noise(40_000) for i in range(5)}, mode))
    if damage == "cut":
        del data[len(data) // 2 :]
    elif mode == "w":
        data[512 + 40_448 + 10] ^= 0xFF  # within the second header
    else:
        data[len(data) // 2] ^= 0xFF
    (tmp_path / "birds.tar").write_bytes(data)
    with pytest.raises(DataError, match="birds.tar cannot be unpacked"):
        unpack(tmp_path / "birds.tar")
    assert [entry.name for entry in tmp_path.iterdir()] == ["birds.tar"]
    assert not is_unpacked(tmp_path / "birds.tar")


@pytest.mark.parametrize("name", ["../outside.txt", "birds/../../outside.txt", "/{root}/outside.txt"])
def test_files_that_would_lie_outside_are_refused(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    name = name.format(root=str(tmp_path)[1:])
    (home / "birds.tgz").write_bytes(tar({"birds/1.jpg": b"1", name: b"gotcha"}))
    if name.startswith("/"):  # an absolute name loses its slash and stays inside
        unpack(home / "birds.tgz")
    else:
        with pytest.raises(DataError, match="cannot be unpacked: .*outside"):
            unpack(home / "birds.tgz")
        assert [entry.name for entry in home.iterdir()] == ["birds.tgz"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["home"]


def test_a_link_that_leads_outside_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("birds/link")
    link.type, link.linkname = tarfile.SYMTYPE, "../../secret"
    with tarfile.open(tmp_path / "birds.tar", "w") as archive:
        archive.addfile(link)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "birds.tar")


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "birds.tgz").write_bytes(tar({"birds/1.jpg": b"theirs", "more/1.jpg": b"1"}))
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "mine.jpg").write_bytes(b"mine")
    unpack(tmp_path / "birds.tgz")
    assert [entry.name for entry in (tmp_path / "birds").iterdir()] == ["mine.jpg"]
    assert (tmp_path / "more" / "1.jpg").exists()


def test_a_set_of_several_files_can_be_read_where_it_was_put(server: Server, tmp_path: Path) -> None:
    """As MIT publishes: an archive, and two lists beside it."""
    tree = mit67(tmp_path / "lists", tmp_path / "tree" / "Images")
    images = {
        str(path.relative_to(tmp_path / "tree")): path.read_bytes() for path in (tmp_path / "tree").rglob("*.jpg")
    }
    lists = ("TrainImages.txt", "TestImages.txt")
    sources = [server.publish("indoorCVPR_09.tar", tar(images, "w"))]
    sources += [server.publish(name, (tree / name).read_bytes()) for name in lists]
    download("mit67", tmp_path / "data" / "mit67", {"mit67": tuple(sources)})
    data = load("mit67", root=tmp_path / "data")
    assert (len(data.train), len(data.test)) == (7, 3)
    download("mit67", tmp_path / "data" / "mit67", {"mit67": tuple(sources)})
    assert len(server.requests) == 3


def test_what_cannot_be_downloaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="photos cannot be downloaded; these can: cub, aircraft, mit67, dtd"):
        download("photos", tmp_path / "photos")
    assert not (tmp_path / "photos").exists()


def test_every_benchmark_has_an_address_and_a_checksum_where_one_is_published() -> None:
    for name, sources in SOURCES.items():
        assert any(source.is_archive for source in sources)
        for source in sources:
            assert (source.md5 is None) == (name == "mit67")
            assert source.md5 is None or (source.url.startswith("https://") and len(source.md5) == 32)
