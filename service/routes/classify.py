"""`POST /classify`: images to class probabilities."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Request, Response

from rankone.service.routes.direct import DirectRoute
from rankone.service.routes.openapi import IMAGE_BODY, PROBLEMS
from rankone.service.routes.problems import Problem
from rankone.service.routes.requests import RuntimeDep, read_images
from rankone.service.routes.responses import json_response, model_fields
from rankone.service.routes.schemas import ClassifyOut

router = APIRouter(route_class=DirectRoute)


@router.post("/classify", responses={200: {"model": ClassifyOut}, **PROBLEMS}, openapi_extra=IMAGE_BODY)
async def classify(request: Request, runtime: RuntimeDep, top_k: Annotated[int, Query(ge=1)] = 5) -> Response:
    """For every image its `top_k` most probable classes (all, where there are fewer), best first."""
    classes = runtime.bundle.manifest.classes
    if classes is None:
        raise Problem(409, "the bundle being served has no classifier; it embeds only")
    outputs = await runtime.inference(await read_images(request, runtime.settings.max_images))
    assert outputs.logits is not None
    predictions = [best_classes(row, classes, top_k) for row in softmax(outputs.logits)]
    return await json_response({**model_fields(runtime.bundle), "predictions": predictions})


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Probabilities (n, classes) of logits (n, classes), in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def best_classes(probabilities: npt.NDArray[np.float64], classes: tuple[str, ...], k: int) -> list[dict[str, Any]]:
    """The k most probable classes, best first; equal ones in their own order."""
    order = np.argsort(-probabilities, kind="stable")[:k].tolist()
    return [{"label": classes[i], "index": i, "probability": float(probabilities[i])} for i in order]
