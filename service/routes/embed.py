"""`POST /embed`: images to embeddings."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from rankone.service.routes.openapi import PROBLEMS, image_body, npy_or
from rankone.service.routes.requests import ImagesIn, QueryIn, RuntimeDep, read_images
from rankone.service.routes.responses import Encoding, ModelOut, Precision, embeddings_response, negotiate

router = APIRouter()


class EmbedIn(QueryIn):
    """How embeddings are written as JSON."""

    encoding: Encoding = "float"
    dtype: Precision = "float32"


class EmbedOut(ModelOut):
    """Embeddings in the order of the request: lists of numbers, or base64 of little-endian values."""

    dim: int
    embeddings: list[list[float]] | list[str]


@router.post("/embed", responses={200: npy_or(EmbedOut), **PROBLEMS}, openapi_extra=image_body(ImagesIn))
async def embed(request: Request, runtime: RuntimeDep, query: Annotated[EmbedIn, Query()]) -> Response:
    """The embeddings of the images, in their order, each of length 1 (a black image has a zero embedding)."""
    accept = negotiate(request)
    outputs = await runtime.inference(await read_images(request, runtime.settings.max_images))
    return await embeddings_response(outputs.embedding, runtime.bundle, accept, query.encoding, query.dtype)
