"""Keys: who is let in, to what, how often; and that nothing is read from those who are not."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import httpx
import pytest

from rankone.service.auth.keys import KeyFileError, KeyRing, KeyScope, add_key, load_keys, revoke_key, with_own_keys
from rankone.service.auth.middleware import _Buckets, _network_of, scope_of
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings
from tests.services import client_of, multipart, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
async def guarded(
    anyio_backend: str, settings: Settings, loaded: Runtime, key_file: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, str]]]:
    """A service with keys, and a key of each scope."""
    keys = {scope: add_key(key_file, scope, frozenset({scope}))[0] for scope in get_args(KeyScope)}
    async with serving(settings.model_copy(update={"keys": key_file}), loaded) as app, client_of(app) as http:
        yield http, keys


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("GET", "/docs", None),
        ("GET", "/docs/swagger-ui-bundle.js", None),
        ("GET", "/docs/swagger-ui.css", None),
        ("GET", "/docs/other", "read"),
        ("GET", "/openapi.json", None),
        ("GET", "/", None),
        ("GET", "/web/main.js", None),
        ("GET", "/web/index.html", "read"),
        ("GET", "/info", "read"),
        ("GET", "/metrics", "read"),
        ("GET", "/models", "read"),
        ("GET", "/indexes/default/items", "read"),
        ("POST", "/embed", "read"),
        ("POST", "/explain", "read"),
        ("POST", "/v1/embeddings", "read"),
        ("POST", "/indexes/default/search", "read"),
        ("POST", "/indexes/default/items", "write"),
        ("POST", "/indexes/default/items/delete", "write"),
        ("POST", "/indexes/a/b/search", "write"),
        ("POST", "/embed/", "write"),
        ("PUT", "/indexes/default", "write"),
        ("DELETE", "/indexes/default", "write"),
        ("PATCH", "/embed", "write"),
        ("POST", "/healthz", "write"),
        ("POST", "/models/a/1/load", "admin"),
        ("POST", "/models/a/1/load\n", "admin"),
        ("DELETE", "/models/a", "admin"),
    ],
)
async def test_every_request_has_a_scope(method: str, path: str, scope: str | None) -> None:
    assert scope_of(method, path) == scope


async def test_a_key_opens_what_its_scope_says(
    guarded: tuple[httpx.AsyncClient, dict[str, str]], images: list[bytes]
) -> None:
    http, keys = guarded
    read, write, admin = (bearer(keys[scope]) for scope in ("read", "write", "admin"))
    items, parts = "/indexes/default/items", multipart(images[:1])
    for status, response in (
        (200, await http.post("/embed", files=parts, headers=read)),
        (403, await http.post("/embed", files=parts, headers=write)),
        (201, await http.post(items, files=parts, headers=write)),
        (403, await http.post(items, files=parts, headers=read)),
        (404, await http.post("/models/a/1/load", headers=admin)),
        (404, await http.post("/models/a/1/load%0A", headers=admin)),
        (403, await http.post("/models/a/1/load%0A", headers=write)),
        (403, await http.post("/models/a/1/load", headers=write)),
        (200, await http.get("/healthz")),
        (200, await http.get("/metrics", headers=read)),
        (401, await http.get("/metrics")),
    ):
        assert response.status_code == status, response.text
    assert (
        "needs a key of scope 'write'; 'read' has read"
        in (await http.delete("/indexes/x", headers=read)).json()["detail"]
    )


async def test_without_a_key_nobody_learns_of_the_files_of_an_index(
    anyio_backend: str, settings: Settings, loaded: Runtime, key_file: Path
) -> None:
    secret, _ = add_key(key_file, "joe", frozenset({"read"}))
    settings.data.mkdir()
    (settings.data / "broken.sqlite").write_bytes(b"no index")
    async with serving(settings.model_copy(update={"keys": key_file}), loaded) as app, client_of(app) as http:
        known = (await http.get("/info", headers=bearer(secret))).json()["index_problems"]["broken"]
        assert str(settings.data) in known
        for headers in ({}, bearer(secret)):
            ready = await http.get("/readyz", headers=headers)
            said = {"broken": "GET /info says why to whoever has a key"}
            assert (ready.status_code, ready.json()) == (200, {"status": "ready", "indexes": said})


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer nonsense", "Basic abc", "Bearer r1_", "Bearer ÿ"]
)
async def test_without_a_valid_key_nothing_of_the_body_is_read(
    guarded: tuple[httpx.AsyncClient, dict[str, str]], header: str | None
) -> None:
    http, _ = guarded

    async def body() -> AsyncIterator[bytes]:
        pytest.fail("the body was read")
        yield b""  # type: ignore[unreachable]

    headers = [("content-type", b"image/png")]
    headers += [] if header is None else [("authorization", header.encode("latin-1"))]
    response = await http.post("/embed", content=body(), headers=httpx.Headers(headers))  # type: ignore[arg-type]
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_key_has_a_rate(settings: Settings, loaded: Runtime, key_file: Path, anyio_backend: str) -> None:
    slow, _ = add_key(key_file, "slow", frozenset({"read"}), requests_per_minute=3)
    other, _ = add_key(key_file, "other", frozenset({"read"}), requests_per_minute=3)
    async with serving(settings.model_copy(update={"keys": key_file}), loaded) as app, client_of(app) as http:
        answers = [await http.get("/info", headers=bearer(slow)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 0 < int(answers[3].headers["retry-after"]) <= 20
        assert (await http.get("/info", headers=bearer(other))).status_code == 200


async def test_the_ring_follows_its_file(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("rankone.service.auth.keys.time.monotonic", lambda: now)
    first, _ = add_key(key_file, "first", frozenset({"read"}))
    ring = KeyRing(key_file)
    second, _ = add_key(key_file, "second", frozenset({"write"}))
    revoke_key(key_file, "first")
    assert (ring.find(first) is not None, ring.find(second)) == (True, None)
    now += 1.1
    assert ring.find(first) is None
    found = ring.find(second)
    assert found is not None
    assert found.scopes == {"write"}
    os.unlink(key_file)
    now += 1.1
    assert ring.find(second) is None, "a key may have been revoked in a file that cannot be read"
    third, _ = add_key(key_file, "third", frozenset({"read"}))
    now += 1.1
    assert ring.find(third) is not None


def test_a_file_that_could_not_be_read_is_tried_again(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing shows that it has changed since, as after a change of its permissions."""
    now = 1000.0
    monkeypatch.setattr("rankone.service.auth.keys.time.monotonic", lambda: now)
    secret, _ = add_key(key_file, "first", frozenset({"read"}))
    ring, good = KeyRing(key_file), key_file.read_bytes()
    for content, is_valid in ((b"?" * len(good), False), (good, True)):
        key_file.write_bytes(content)
        os.utime(key_file, (1, 1))
        now += 1.1
        assert (ring.find(secret) is not None) == is_valid


def test_the_file_keeps_its_mode(key_file: Path) -> None:
    """Whoever may read it may read what replaces it: the service's user, for instance."""
    add_key(key_file, "first", frozenset({"read"}))
    assert key_file.stat().st_mode & 0o777 == 0o600
    key_file.chmod(0o644)
    for change in (lambda: add_key(key_file, "second", frozenset({"read"})), lambda: revoke_key(key_file, "first")):
        change()
        assert key_file.stat().st_mode & 0o777 == 0o644
    assert os.listdir(key_file.parent) == [key_file.name]


def test_keys_added_at_once_are_all_there(key_file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: add_key(key_file, f"key {n}", frozenset({"read"})), range(40)))
    assert {key.name for key in load_keys(key_file)} == {f"key {n}" for n in range(40)}


def test_only_the_hash_is_kept(key_file: Path) -> None:
    secrets = [add_key(key_file, None, frozenset({"read"}))[0] for _ in range(3)]
    assert len(set(secrets)) == len({key.name for key in load_keys(key_file)}) == 3
    assert not any(secret in key_file.read_text() for secret in secrets)
    assert all(len(entry["sha256"]) == 64 for entry in json.loads(key_file.read_text())["keys"])


async def test_refusals_of_an_address_are_limited(
    guarded: tuple[httpx.AsyncClient, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("rankone.service.auth.middleware.time.monotonic", lambda: now)
    http, keys = guarded
    answers = [await http.get("/info", headers=bearer(f"r1_{n}")) for n in range(62)]
    assert [answer.status_code for answer in answers] == [401] * 60 + [429] * 2
    assert answers[-1].headers["retry-after"] == "1"
    assert "without a valid key came from this address" in answers[-1].json()["detail"]
    assert (await http.get("/info", headers=bearer(keys["read"]))).status_code == 200, "nobody can lock out others"
    assert (await http.get("/healthz")).status_code == 200
    now += 2.1
    assert [(await http.get("/info")).status_code for _ in range(3)] == [401, 401, 429]


def test_the_memory_of_addresses_is_bounded() -> None:
    failures = _Buckets()
    assert [failures.take("a", 60) for _ in range(60)] == [0] * 60
    assert failures.take("a", 60) > 0
    for number in range(10_000):
        failures.take(str(number), 60)
    assert len(failures._buckets) == 10_000
    assert failures.take("a", 60) == 0, "the one that was quiet for longest is forgotten"


def test_addresses_that_a_client_can_choose_freely_count_as_one() -> None:
    networks = [
        _network_of((address, 1))
        for address in (
            "2001:db8:1:2::1",
            "2001:db8:1:2:ffff::9",
            "2001:db8:1:3::1",
            "10.0.0.1",
            "::ffff:10.0.0.2",
            "x",
        )
    ]
    assert networks[0] == networks[1]
    assert len(set(networks)) == 5
    assert _network_of(None) == ""


def test_a_file_without_keys_is_said_in_the_log(key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    for content in (b"", b" \n", b'{"keys": []}'):
        key_file.write_bytes(content)
        caplog.clear()
        ring = KeyRing(key_file)
        assert "holds no keys, so nobody can use the service" in caplog.text
        assert ring.find("") is None
    add_key(key_file, "joe", frozenset({"read"}))
    caplog.clear()
    KeyRing(key_file)
    assert caplog.text == ""


def test_the_last_key_that_is_revoked_is_said_in_the_log(
    key_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("rankone.service.auth.keys.time.monotonic", lambda: now)
    secret, _ = add_key(key_file, "joe", frozenset({"read"}))
    ring = KeyRing(key_file)
    revoke_key(key_file, "joe")
    now += 1.1
    assert ring.find(secret) is None
    assert "holds no keys" in caplog.text


def test_the_first_start_makes_a_key_and_says_where_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = tmp_path / "data" / "keys"
    with ThreadPoolExecutor(4) as pool:  # several services over one volume
        made = list(pool.map(with_own_keys, [Settings(own_keys=own)] * 8))
    assert {settings.keys for settings in made} == {own / "keys.json"}
    secret = (own / "first.key").read_text().strip()
    found = KeyRing(own / "keys.json").find(secret)
    assert found is not None
    assert (found.name, found.scopes) == ("first", frozenset[KeyScope](get_args(KeyScope)))
    assert (own / "first.key").stat().st_mode & 0o777 == 0o600
    assert caplog.text.count(f"it is in the file {own / 'first.key'}") == 1
    assert secret not in caplog.text
    (own / "first.key").unlink()
    assert with_own_keys(Settings(own_keys=own)).keys == own / "keys.json"
    assert not (own / "first.key").exists(), "only the first start makes one"


def test_keys_of_its_own_are_for_services_that_have_no_others(tmp_path: Path) -> None:
    for settings in (
        Settings(),
        Settings(own_keys=tmp_path, allow_anonymous=True),
        Settings(own_keys=tmp_path, keys=tmp_path),
    ):
        assert with_own_keys(settings) is settings
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot be written"):
        with_own_keys(Settings(own_keys=tmp_path / "file"))
