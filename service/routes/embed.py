"""`POST /embed`: images to embeddings."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rankone.service.routes.direct import DirectRoute
from rankone.service.routes.openapi import IMAGE_BODY, PROBLEMS, npy_or
from rankone.service.routes.requests import RuntimeDep, read_images
from rankone.service.routes.responses import Encoding, Precision, embeddings_response, negotiate
from rankone.service.routes.schemas import EmbedOut

router = APIRouter(route_class=DirectRoute)


@router.post("/embed", responses={200: npy_or(EmbedOut), **PROBLEMS}, openapi_extra=IMAGE_BODY)
async def embed(
    request: Request, runtime: RuntimeDep, encoding: Encoding = "float", dtype: Precision = "float32"
) -> Response:
    """The embeddings of the images, in their order, each of length 1 (a black image has a zero embedding)."""
    accept = negotiate(request)
    outputs = await runtime.inference(await read_images(request, runtime.settings.max_images))
    return await embeddings_response(outputs.embedding, runtime.bundle, accept, encoding, dtype)
