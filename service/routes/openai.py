"""`POST /v1/embeddings`: embeddings for clients that speak OpenAI's interface; the inputs are images as base64."""

from __future__ import annotations

import base64
from typing import Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from rankone.service.errors import Problem
from rankone.service.routes.forms import check_count
from rankone.service.routes.openapi import PROBLEMS, json_body
from rankone.service.routes.requests import NO_QUERY, RuntimeDep, decode_base64, read_json
from rankone.service.routes.responses import JSON, to_json, written
from rankone.service.runtime import Runtime

router = APIRouter(prefix="/v1", tags=["openai"], dependencies=[NO_QUERY])


class OpenAIIn(BaseModel):
    """OpenAI's request for embeddings; other fields that its clients send are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    input: str | list[str]
    """One image or several, as base64 or `data:` URIs."""
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class OpenAIEmbedding(BaseModel):
    """One of OpenAI's embeddings."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class OpenAIOut(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: dict[str, int]


@router.post("/embeddings", responses={200: {"model": OpenAIOut}, **PROBLEMS}, openapi_extra=json_body(OpenAIIn))
async def embeddings(request: Request, runtime: RuntimeDep) -> Response:
    """One embedding an input, in order. `model` is the name of the bundle being served, `dimensions` its own, if given."""
    asked = await read_json(request, OpenAIIn)
    _check(asked, runtime)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    check_count(len(texts), runtime.settings.max_images)
    outputs = await runtime.inference(await decode_base64(texts))
    values = outputs.embedding.astype("<f4", copy=False)
    return await written(lambda: _answer(values, asked), JSON, size=values.nbytes)


def _answer(values: npt.NDArray[np.float32], asked: OpenAIIn) -> bytes:
    rows = [base64.b64encode(row).decode() for row in values] if asked.encoding_format == "base64" else values
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return to_json({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _check(asked: OpenAIIn, runtime: Runtime) -> None:
    manifest = runtime.bundle.manifest
    if asked.model != manifest.name:
        raise Problem(404, f"there is no model {asked.model!r} here; {manifest.name!r} is being served")
    if asked.dimensions not in (None, manifest.dim):
        raise Problem(422, f"dimensions: {asked.dimensions} cannot be had; embeddings have {manifest.dim}")
