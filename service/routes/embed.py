"""`POST /embed` and `POST /classify`: images to embeddings, and to class probabilities."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from rankone.service.errors import Problem
from rankone.service.routes.checks import check_dim, of_length
from rankone.service.routes.openapi import image_body, json_or
from rankone.service.routes.requests import ImagesIn, QueryIn, RuntimeDep, read_images
from rankone.service.routes.responses import (
    NPY,
    Dtype,
    Encoding,
    ModelOut,
    embeddings_response,
    json_response,
    model_fields,
    negotiate,
)

router = APIRouter()


class EmbedIn(QueryIn):
    """How many dimensions embeddings have, all if not given, and how they are written as JSON."""

    dim: int | None = Field(default=None, ge=1)
    encoding: Encoding = "float"
    dtype: Dtype = "float32"


class EmbedOut(ModelOut):
    """Embeddings in the order of the request: lists of numbers, or base64 of little-endian values."""

    dim: int
    embeddings: list[list[float]] | list[str]


@router.post("/embed", responses={200: json_or(EmbedOut, NPY)}, openapi_extra=image_body(ImagesIn))
async def embed(request: Request, runtime: RuntimeDep, query: Annotated[EmbedIn, Query()]) -> Response:
    """The embeddings of the images, in their order, each of length 1 (a black image has a zero embedding)."""
    accept, dim = negotiate(request), check_dim(query.dim, runtime.bundle)
    outputs = await runtime.inference(await read_images(request, runtime.settings.max_images))
    return await embeddings_response(of_length(outputs, dim), runtime.bundle, accept, query.encoding, query.dtype)


class ClassifyIn(QueryIn):
    """How many classes are answered."""

    top_k: int = Field(default=5, ge=1)


class Prediction(BaseModel):
    """A class with its probability."""

    label: str
    index: int
    probability: float


class ClassifyOut(ModelOut):
    """For every image its most probable classes, best first."""

    predictions: list[list[Prediction]]


@router.post("/classify", response_model=ClassifyOut, openapi_extra=image_body(ImagesIn))
async def classify(request: Request, runtime: RuntimeDep, query: Annotated[ClassifyIn, Query()]) -> Response:
    """For every image its `top_k` most probable classes (all, where there are fewer), best first."""
    classes = runtime.bundle.manifest.classes
    if classes is None:
        raise Problem(409, "the bundle being served has no classifier; it embeds only")
    outputs = await runtime.inference(await read_images(request, runtime.settings.max_images))
    assert outputs.logits is not None
    predictions = [best_classes(row, classes, query.top_k) for row in softmax(outputs.logits)]
    return await json_response({**model_fields(runtime.bundle), "predictions": predictions})


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Probabilities (n, classes) of logits (n, classes), in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def best_classes(probabilities: npt.NDArray[np.float64], classes: tuple[str, ...], k: int) -> list[dict[str, Any]]:
    """The k most probable classes, best first; equal ones in their own order."""
    order = np.argsort(-probabilities, kind="stable")[:k].tolist()
    return [{"label": classes[i], "index": i, "probability": float(probabilities[i])} for i in order]
