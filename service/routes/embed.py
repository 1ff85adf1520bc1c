"""`POST /embed`: images to embeddings."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from rankone.service.routes.checks import check_dim, of_length
from rankone.service.routes.openapi import PROBLEMS, image_body, npy_or
from rankone.service.routes.requests import ImagesIn, QueryIn, RuntimeDep, read_images
from rankone.service.routes.responses import Dtype, Encoding, ModelOut, embeddings_response, negotiate

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


@router.post("/embed", responses={200: npy_or(EmbedOut), **PROBLEMS}, openapi_extra=image_body(ImagesIn))
async def embed(request: Request, runtime: RuntimeDep, query: Annotated[EmbedIn, Query()]) -> Response:
    """The embeddings of the images, in their order, each of length 1 (a black image has a zero embedding)."""
    accept, dim = negotiate(request), check_dim(query.dim, runtime.bundle)
    outputs = await runtime.inference(await read_images(request, runtime.settings.max_images))
    return await embeddings_response(of_length(outputs, dim), runtime.bundle, accept, query.encoding, query.dtype)
