"""`POST /explain`: where in an image the evidence for a class, or for a match, lies."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Query, Request, Response
from PIL import Image
from pydantic import BaseModel, Field, model_validator

from rankone.index import DEFAULT
from rankone.model.bundle import Bundle
from rankone.model.explanation import Evidence, Explainer, check_evidence
from rankone.model.overlay import overlay, png, side_by_side
from rankone.model.preprocessing import Preprocessing
from rankone.model.reduction import Floats
from rankone.service.errors import Problem
from rankone.service.inference.inference import Inferred
from rankone.service.routes.checks import of_length
from rankone.service.routes.openapi import image_body, json_or
from rankone.service.routes.requests import ImagesIn, QueryIn, RuntimeDep, read_images
from rankone.service.routes.responses import JSON, PNG, ModelOut, model_fields, negotiate, to_json, written
from rankone.service.runtime import LOOKUPS, in_thread

router = APIRouter()

_LIKE: Final = 0.9
"""A second image with this cosine to the item, or as like it as the query is, is taken for the item's own. So are thumbnails,
which have fewer pixels and another compression than the image that was added."""


class ExplainIn(QueryIn):
    """What is explained: a class, by default the most probable one, or the match with an item of an index.

    With `overlay`, JSON holds the pictures too.
    """

    target: Literal["class", "item"]
    label: str | None = None
    index: str = DEFAULT
    id: str | None = Field(default=None, min_length=1)
    format: Literal["json", "png"] | None = None
    overlay: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> ExplainIn:
        foreign = {"class": {"index", "id"}, "item": {"label"}}[self.target] & self.model_fields_set
        if foreign:
            raise ValueError(f"{min(foreign)} does not go with target={self.target}")
        if self.target == "item" and self.id is None:
            raise ValueError("target=item needs the id of the item")
        if self.overlay and self.format == "png":
            raise ValueError("overlay=true adds pictures to JSON; it does not go with format=png")
        return self


class ExplanationOut(BaseModel):
    """The map of one image: `score` is the sum of all shares and of `rest`, which no location owns.

    `shares` has a list for each row of locations, from the top left of the square that the network sees. `side` is `query`, or
    `item` for the second image of a match; `likeness` is the cosine of that image with the item as it is stored. `overlay` is
    base64 of a PNG.
    """

    side: Literal["query", "item"]
    label: str | None = None
    id: str | None = None
    likeness: float | None = None
    score: float
    rest: float
    shares: list[list[float]]
    overlay: str | None = None


class ExplainOut(ModelOut):
    """One explanation an image, each with a map of `rows` x `columns` locations."""

    target: Literal["class", "item"]
    rows: int
    columns: int
    explanations: list[ExplanationOut]


Explained = tuple[dict[str, Any], Evidence]


@router.post("/explain", responses={200: json_or(ExplainOut, PNG)}, openapi_extra=image_body(ImagesIn))
async def explain(request: Request, runtime: RuntimeDep, query: Annotated[ExplainIn, Query()]) -> Response:
    """The share of each location in a score: a class's logit, or the cosine with an item.

    `target=item` takes one image, the query, or two: the second one is the item's own image, whose side is explained too.
    """
    accept = JSON if query.format == "json" else PNG if query.format == "png" else negotiate(request, PNG)
    record = check_evidence(runtime.bundle)
    label = _label_of(query, runtime.bundle) if query.target == "class" else None
    stored = None
    if query.id is not None:
        target = await runtime.index(query.index)
        stored = (await in_thread(LOOKUPS, target.vectors, [query.id]))[0]
    images = await read_images(request, runtime.settings.max_images)
    most = 2 if query.target == "item" else 1 if accept == PNG else len(images)
    if len(images) > most:
        what = "a match has a query and at most the item's own image" if query.target == "item" else "a PNG shows one"
        raise Problem(422, f"{len(images)} images were sent; {what}")
    outputs = await runtime.inference(images, thumbnails=accept == PNG or query.overlay, features=True)
    explainer = Explainer.of(runtime.bundle)
    if stored is None:
        explained = await _classes(outputs, explainer, runtime.bundle, label)
    else:
        explained = await _match(outputs, explainer, query, stored)
    spec = runtime.bundle.manifest.preprocessing
    if accept == PNG:
        return await written(lambda: png(side_by_side(_pictures(outputs, explained, spec))), PNG)
    answers = [_explanation(said, evidence) for said, evidence in explained]
    body = {**model_fields(runtime.bundle), "target": query.target, "rows": record.rows, "columns": record.columns}

    def write() -> bytes:
        if query.overlay:
            for answer, picture in zip(answers, _pictures(outputs, explained, spec), strict=True):
                answer["overlay"] = base64.b64encode(png(picture)).decode()
        return to_json({**body, "explanations": answers})

    return await written(write, JSON)


def _label_of(query: ExplainIn, bundle: Bundle) -> int | None:
    """The index of the class that is asked for, None if none is.

    Raises:
        Problem: 409 the bundle has no classifier, 422 no such class.
    """
    classes = bundle.manifest.classes
    if classes is None:
        raise Problem(409, "the bundle being served has no classifier; explain a match, with target=item")
    if query.label is None:
        return None
    if query.label not in classes:
        raise Problem(422, f"label: there is no class {query.label[:60]!r}; /classify answers the names of the classes")
    return classes.index(query.label)


async def _classes(outputs: Inferred, explainer: Explainer, bundle: Bundle, label: int | None) -> list[Explained]:
    """Image by image, so that a deadline can come between them."""
    assert outputs.features is not None
    assert outputs.logits is not None
    assert bundle.manifest.classes is not None
    explained: list[Explained] = []
    for features, logits in zip(outputs.features, outputs.logits, strict=True):
        chosen = int(logits.argmax()) if label is None else label
        evidence = await anyio.to_thread.run_sync(explainer.of_class, features, chosen)
        explained.append(({"side": "query", "label": bundle.manifest.classes[chosen]}, evidence))
    return explained


async def _match(outputs: Inferred, explainer: Explainer, query: ExplainIn, stored: Floats) -> list[Explained]:
    """The query's side, whose target is the stored vector; then the item's, whose target is the query's embedding.

    Raises:
        Problem: 422, the second image is not that of the item.
    """
    assert outputs.features is not None
    embeddings = of_length(outputs, len(stored))
    evidence = await anyio.to_thread.run_sync(explainer.of_vector, outputs.features[0], stored)
    explained: list[Explained] = [({"side": "query", "id": query.id}, evidence)]
    if len(embeddings) > 1:
        likeness = float(embeddings[1] @ stored)
        if likeness < min(_LIKE, float(embeddings[0] @ stored)):
            raise Problem(
                422,
                f"the second image is not that of the item {query.id!r}: its cosine with the stored vector is {likeness:.3f}; "
                "send the image that the item was made of, or its thumbnail, or none",
            )
        evidence = await anyio.to_thread.run_sync(explainer.of_vector, outputs.features[1], embeddings[0])
        explained.append(({"side": "item", "id": query.id, "likeness": likeness}, evidence))
    return explained


def _explanation(said: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    return {**said, "score": evidence.score, "rest": evidence.rest, "shares": evidence.shares.astype(np.float32)}


def _pictures(outputs: Inferred, explained: Sequence[Explained], spec: Preprocessing) -> list[Image.Image]:
    """The decoders' thumbnails under their shares: JPEGs of our own, so this process may decode them."""
    pictures = []
    for thumbnail, (_, evidence) in zip(outputs.thumbnails, explained, strict=True):
        assert thumbnail is not None
        pictures.append(overlay(Image.open(io.BytesIO(thumbnail)), evidence.shares, spec))
    return pictures
