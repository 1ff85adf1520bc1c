"""`POST /v1/embeddings` and `GET /v1/models`, for clients that speak OpenAI's interface; the inputs are images as base64."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, field_validator

from rankone.service.errors import Problem
from rankone.service.routes.checks import check_dim, of_length
from rankone.service.routes.forms import check_count
from rankone.service.routes.openapi import json_body
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
    encoding_format: Literal["float", "base64"] | None = None
    """`float` unless it is said."""
    dimensions: int | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _images(cls, value: Any) -> Any:
        """Refuses texts, and images in other services' forms, and says what to send instead."""
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, int | list) and not isinstance(part, bool) for part in parts):
            raise ValueError(
                "lists of tokens are not accepted, as inputs are images: send each as a string of base64 "
                "(in LangChain, with check_embedding_ctx_length=False)"
            )
        if any(isinstance(part, dict) for part in parts):
            raise ValueError("objects are not accepted: send each image as a string, of base64 or a data: URI")
        return value


class OpenAIEmbedding(BaseModel):
    """One of OpenAI's embeddings."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class OpenAIModel(BaseModel):
    """A model as OpenAI describes it; `created` is in seconds since 1970."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["rankone"] = "rankone"


class OpenAIModels(BaseModel):
    """The models that `/v1/embeddings` accepts."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class OpenAIOut(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: dict[str, int]


@router.get("/models")
async def list_openai_models(runtime: RuntimeDep) -> OpenAIModels:
    """The bundle being served, under the name by which `/v1/embeddings` accepts it; `/models` lists all bundles."""
    return OpenAIModels(data=[_served(runtime)])


@router.get("/models/{name}")
async def get_openai_model(name: str, runtime: RuntimeDep) -> OpenAIModel:
    """The bundle being served, if this is its name."""
    _check_model(name, runtime)
    return _served(runtime)


@router.post("/embeddings", response_model=OpenAIOut, openapi_extra=json_body(OpenAIIn))
async def embeddings(request: Request, runtime: RuntimeDep) -> Response:
    """One embedding an input, in order. `model` names the bundle being served, `dimensions` a length as `dim` of /embed."""
    asked = await read_json(request, OpenAIIn)
    _check_model(asked.model, runtime)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    check_count(len(texts), runtime.settings.max_images)
    dim = check_dim(asked.dimensions, runtime.bundle, "dimensions")
    outputs = await runtime.inference(await decode_base64(texts))
    values = of_length(outputs, dim).astype("<f4", copy=False)
    return await written(lambda: _answer(values, asked), JSON, size=values.nbytes)


def _answer(values: npt.NDArray[np.float32], asked: OpenAIIn) -> bytes:
    rows = [base64.b64encode(row).decode() for row in values] if asked.encoding_format == "base64" else values
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return to_json({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _served(runtime: Runtime) -> OpenAIModel:
    manifest = runtime.bundle.manifest
    return OpenAIModel(id=manifest.name, created=int(manifest.created.timestamp()))


def _check_model(name: str, runtime: Runtime) -> None:
    served = runtime.bundle.manifest.name
    if name != served:
        raise Problem(404, f"there is no model {name!r} here; {served!r} is being served")
