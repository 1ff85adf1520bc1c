from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from rankone.index import Indexes
from rankone.model.bundle import Bundle, BundleError
from rankone.model.findings import first_installed
from rankone.model.preprocessing import MEDIA_TYPES
from rankone.service.app import create_app
from rankone.service.preflight import InsecureBind, check_address
from rankone.service.runtime import load
from rankone.service.settings import Settings
from tests.services import client_of, fail, multipart

pytestmark = pytest.mark.anyio


async def test_before_the_bundle_is_loaded_it_lives_but_is_not_ready(settings: Settings) -> None:
    async with client_of(create_app(settings, fail)) as http:
        assert (await http.get("/healthz")).json() == {"status": "alive"}
        for method, path in (("GET", "/readyz"), ("GET", "/info"), ("POST", "/embed"), ("GET", "/indexes")):
            response = await http.request(method, path)
            assert response.status_code == 503
            assert response.headers["content-type"] == "application/problem+json"
            assert "still loading" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/metrics%0A", "/healthz%0A", "/%0Ametrics", "/metrics%0A%0A", "/indexes/a%0A"])
async def test_a_path_with_a_line_break_is_no_other_path(settings: Settings, path: str) -> None:
    """As the routes' own patterns would have it, and as a proxy that keeps `/metrics` to the inside would not."""
    async with client_of(create_app(settings, fail)) as http:
        assert (await http.get("/metrics")).status_code == 200
        response = await http.get(path)
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
        assert "%0A" in response.json()["detail"]


async def test_the_lifespan_loads_the_bundle_and_ends_all_of_it(settings: Settings) -> None:
    app = create_app(settings, fail)
    async with app.router.lifespan_context(app):
        while (runtime := app.state.service.runtime) is None:  # noqa: ASYNC110 - it has no event
            await anyio.sleep(0.01)
        pids = runtime.pool.pids
        assert len(pids) == settings.workers
    assert app.state.service.runtime is None
    assert not {str(pid) for pid in pids} & set(os.listdir("/proc"))
    again = Indexes(settings.data)  # the folder has been let go of
    assert again.open("default", runtime.bundle.fingerprint).problem is None
    again.close()


async def test_a_bundle_that_cannot_be_loaded_is_reported(settings: Settings) -> None:
    failures: list[Exception] = []
    app = create_app(settings.model_copy(update={"bundle": settings.data}), failures.append)
    async with app.router.lifespan_context(app):
        while not failures:  # noqa: ASYNC110 - it has no event
            await anyio.sleep(0.01)
    assert isinstance(failures[0], BundleError)


async def test_info_says_what_answers(http: httpx.AsyncClient, bundle: Bundle, settings: Settings) -> None:
    info = (await http.get("/info")).json()
    assert info["fingerprint"] == bundle.fingerprint
    assert (info["engine"], info["provider"], info["device"]) == ("onnx", "CPUExecutionProvider", "cpu")
    assert info["engine_choice"] == "precision float32, as none is set"
    assert (info["dim"], info["classes"]) == (10_000, ["brick", "coins", "grass", "retina"])
    assert info["limits"]["max_images"] == settings.max_images
    assert info["max_batch"] == 3
    assert info["versions"]["onnxruntime-gpu"]
    assert info["preprocessing"]["size"] == 64


async def test_metrics_count_requests_by_route_and_images(
    http: httpx.AsyncClient, app: FastAPI, bundle: Bundle, images: list[bytes]
) -> None:
    state = app.state
    state.service.runtime = await load(bundle, state.settings, state.metrics, state.indexes)
    await http.post("/embed", files=multipart(images[:4]))
    await http.post("/embed", content=b"x", headers={"content-type": "image/png"})
    await http.get("/indexes/default/items/some-id")
    await http.get("/nowhere")
    await http.post("/indexes/default/items", files=multipart(images[:2]))
    text = (await http.get("/metrics")).text
    for line in (
        'rankone_requests_total{method="POST",route="/embed",status="200"} 1.0',
        'rankone_requests_total{method="POST",route="/embed",status="415"} 1.0',
        'rankone_requests_total{method="GET",route="/indexes/{index}/items/{item_id:path}",status="404"} 1.0',
        'rankone_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        "rankone_images_total 6.0",
        'rankone_index_items{index="default"} 2.0',
        'rankone_refusals_total{reason="type"} 1.0',
        'rankone_part_seconds_count{part="decode"} 2.0',
        "rankone_batch_images_sum 6.0",
        "rankone_queue_images 0.0",
        'rankone_engine_info{engine="onnx",precision="float32",provider="CPUExecutionProvider"} 1.0',
    ):
        assert line in text, text
    await state.service.retire(state.service.replace(None))


async def test_a_client_that_goes_away_is_no_fault_of_ours(app: FastAPI) -> None:
    """It hangs up in the middle of its body: counted as such, without an error in the log."""
    scope = {
        "type": "http",
        "method": "FOOBAR",
        "path": "/embed",
        "headers": [(b"host", b"localhost"), (b"content-type", b"image/png"), (b"content-length", b"9")],
        "query_string": b"",
    }
    messages = iter([{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_message: Any) -> None: ...

    await app({**scope, "method": "POST"}, receive, send)
    await app(scope, receive, send)
    async with client_of(app) as http:
        text = (await http.get("/metrics")).text
    assert 'rankone_requests_total{method="POST",route="/embed",status="499"} 1.0' in text
    assert 'method="other"' in text
    assert "FOOBAR" not in text


async def test_the_openapi_document_names_every_body_and_answer(app: FastAPI, http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    embed = document["paths"]["/embed"]["post"]
    assert set(embed["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
        *MEDIA_TYPES,
    }
    assert set(embed["responses"]["200"]["content"]) == {"application/json", "application/x-npy"}
    assert "/indexes/{index}/items/{item_id}" in document["paths"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_open_door_must_be_asked_for(host: str) -> None:
    with pytest.raises(
        InsecureBind, match=r"can be reached from outside and there are no keys: make some .*set allow_anonymous"
    ):
        check_address(Settings(host=host))
    check_address(Settings(host=host, allow_anonymous=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_alone_is_always_allowed(host: str) -> None:
    check_address(Settings(host=host))


def test_the_first_alternative_that_is_installed_is_named() -> None:
    assert first_installed(("numpy", "pillow")) == ("numpy", version("numpy"))
    assert first_installed(("no-such-build", "pillow")) == ("pillow", version("pillow"))
    with pytest.raises(PackageNotFoundError, match="nor-this"):
        first_installed(("no-such-build", "nor-this"))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKONE_MAX_BATCH", "5")
    monkeypatch.setenv("RANKONE_ENGINE", "torchscript")
    assert (Settings().max_batch, Settings().engine) == (5, "torchscript")
    monkeypatch.setenv("RANKONE_MAX_BATCH", "many")
    with pytest.raises(ValueError, match="max_batch"):
        Settings()
