"""`GET /models` and `POST /models/{name}/{version}/load`: which bundles there are, and serving another one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, cast

import anyio.to_thread
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from rankone.service.bundle_files import Listed
from rankone.service.bundles import Models
from rankone.service.routes.requests import NO_QUERY, RuntimeDep
from rankone.service.routes.responses import ModelOut
from rankone.service.runtime import Runtime

router = APIRouter(prefix="/models", tags=["models"], dependencies=[NO_QUERY])


State = Literal["served", "available", "broken"]


class ModelState(BaseModel):
    """A bundle of the service: being served, available, or broken, with the reason."""

    model: str
    version: str | None
    fingerprint: str | None
    created: datetime | None
    dim: int | None
    state: State
    detail: str | None = None


class ModelsOut(BaseModel):
    """All bundles, newest first."""

    models: list[ModelState]


async def _models(request: Request, _: RuntimeDep) -> Models:
    return cast(Models, request.app.state.models)


ModelsDep = Annotated[Models, Depends(_models)]


@router.get("")
async def list_models(models: ModelsDep, runtime: RuntimeDep) -> ModelsOut:
    """Every bundle of the service, newest first. Their files are verified when they are loaded."""
    listed = await anyio.to_thread.run_sync(models.listed)
    return ModelsOut(models=[_described(entry, runtime) for entry in listed])


@router.post("/{name}/{version}/load")
async def load_model(name: str, version: str, models: ModelsDep) -> ModelOut:
    """Verifies and warms this bundle, then serves it; requests in work are answered by the one they began with.

    A bundle that cannot be served is refused with 409, and the one before it stays.
    """
    fingerprint = await models.load(name, version)
    return ModelOut(model=name, version=version, fingerprint=fingerprint)


def _described(listed: Listed, runtime: Runtime) -> ModelState:
    manifest = listed.manifest
    state: State = "available" if listed.detail is None else "broken"
    return ModelState(
        model=manifest.name if manifest else listed.path.name,
        version=manifest.version if manifest else None,
        fingerprint=listed.fingerprint,
        created=manifest.created if manifest else None,
        dim=manifest.dim if manifest else None,
        state="served" if listed.fingerprint == runtime.bundle.fingerprint else state,
        detail=listed.detail,
    )
