"""`GET /indexes/{index}/map`."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from rankone.__main__ import run
from rankone.service.auth.keys import add_key
from rankone.service.auth.middleware import scope_of
from rankone.service.routes.indexes import MapOut
from rankone.service.runtime import Runtime
from tests.services import client_of, serving

pytestmark = [pytest.mark.anyio, pytest.mark.backends("local", "postgres")]

MAP = "/indexes/default/map"


async def put(http: httpx.AsyncClient, dim: int, count: int) -> None:
    vectors = [[float(place == number) for place in range(dim)] for number in range(count)]
    metadata = [{"label": "red"}, {"label": 3.5}, {}, {"label": True}, {"label": None}]
    items = [{"id": f"a/{n}", "vector": vector, "metadata": metadata[n % 5]} for n, vector in enumerate(vectors)]
    assert (await http.post("/indexes/default/items", json={"items": items})).status_code == 201


async def test_a_map_is_answered_once_it_was_made(
    light: Runtime, light_http: httpx.AsyncClient, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, word = (str(tmp_path / "index"), "FOLDER") if place == "local" else (place, "URL")
    missing = await light_http.get(MAP)
    assert missing.status_code == 404
    assert f"`rankone index map {word} default`" in missing.json()["detail"]
    assert (await light_http.get("/indexes/other/map")).json()["detail"] == "there is no index 'other'"
    dim = light.bundle.manifest.dim
    await put(light_http, dim, 5)
    assert run("index", ["map", folder]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("5 points; the axes hold 2")
    body = (await light_http.get(MAP)).json()
    assert set(body) == set(MapOut.model_fields)
    assert (body["ids"], body["count"], body["is_current"]) == ([f"a/{n}" for n in range(5)], 5, True)
    assert (body["fields"], body["field"], body["values"]) == (["label"], None, None)
    assert len(body["x"]) == len(body["y"]) == 5
    assert body["shares"] == pytest.approx([0.25, 0.25])
    coloured = (await light_http.get(MAP, params={"field": "label"})).json()
    assert (coloured["field"], coloured["values"]) == ("label", ["red", 3.5, None, True, None])
    MapOut.model_validate(coloured)
    await light_http.delete("/indexes/default/items/a%2F0")
    later = (await light_http.get(MAP, params={"field": "label"})).json()
    assert (later["is_current"], later["values"][0], later["ids"]) == (False, None, body["ids"])
    assert run("index", ["map", folder, "default", "--most", "3"]) == 0
    assert capsys.readouterr().out.startswith("3 points, drawn from 4; ")
    assert len((await light_http.get(MAP)).json()["ids"]) == 3


@pytest.mark.parametrize(
    ("query", "words"), [("?field=", "at least 1"), ("?fields=a", "fields"), ("?field=a%22b", "is no field")]
)
async def test_what_is_not_understood_is_named(
    light: Runtime, light_http: httpx.AsyncClient, tmp_path: Path, place: str, query: str, words: str
) -> None:
    await put(light_http, light.bundle.manifest.dim, 2)
    assert run("index", ["map", str(tmp_path / "index") if place == "local" else place]) == 0
    response = await light_http.get(f"{MAP}{query}")
    assert (response.status_code, words in response.json()["detail"]) == (422, True), response.text


async def test_it_needs_the_scope_of_reading(light: Runtime, tmp_path: Path) -> None:
    keys = {scope: add_key(tmp_path / "keys.json", scope, frozenset({scope}))[0] for scope in ("read", "write")}
    settings = light.settings.model_copy(update={"keys": tmp_path / "keys.json", "data": tmp_path / "index"})
    async with serving(settings, light) as app, client_of(app) as http:
        assert (await http.get(MAP)).status_code == 401
        for scope, status in (("read", 404), ("write", 403)):
            answer = await http.get(MAP, headers={"Authorization": f"Bearer {keys[scope]}"})
            assert answer.status_code == status
        document = (await http.get("/openapi.json")).json()
    assert scope_of("GET", MAP) == "read"
    (operation,) = (
        one for path, operations in document["paths"].items() if path.endswith("/map") for one in [operations["get"]]
    )
    assert [entry["name"] for entry in operation["parameters"]] == ["index", "field"]
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/MapOut")
