"""The JSON forms of requests and answers, as api documents show them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ImagesIn(_In):
    """Images as base64 or `data:` URIs."""

    images: list[str]


ItemId = Annotated[str, Field(min_length=1, max_length=255)]
Vector = Annotated[list[float], Field(max_length=1_000_000)]
"""Its length is compared with the bundle's later; the bound only ends the reading of nonsense."""


class ItemIn(_In):
    """An item to add: an image or its embedding, under an id (made up if absent), with metadata."""

    id: ItemId | None = None
    image: str | None = None
    vector: Vector | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> ItemIn:
        if (self.image is None) == (self.vector is None):
            raise ValueError("an item has either an image or a vector")
        return self


class ItemsIn(_In):
    """Items to add or replace."""

    items: list[ItemIn]


class FormItem(_In):
    """What the part `items` of a multipart request says of the image at the same place."""

    id: ItemId | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class FormItems(RootModel[list[FormItem]]):
    """The part `items` of a multipart request: one entry an image, in the same order."""


MetadataFilter = Annotated[dict[str, Any], Field(min_length=1)]
"""As `rankone.index.filters` says, which checks it."""


class IdsIn(_In):
    """Items by their ids, or by a filter on their metadata."""

    ids: list[ItemId] | None = None
    filter: MetadataFilter | None = None

    @model_validator(mode="after")
    def _one_source(self) -> IdsIn:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("either ids or a filter says what to delete")
        return self


class IndexIn(_In):
    """How an index is to be kept and searched."""

    kind: Literal["exact", "compact"] = "exact"
    dtype: Literal["float16", "float32"] = "float16"
    thumbnails: bool = False


class SearchIn(_In):
    """A batch of queries, given as images, as vectors or as ids of items; or one by examples: more like these, less like those.

    With `exclude_self`, an item is not answered to its own id. With `group_by`, a field of the metadata, only the best item of
    each of its values is answered.
    """

    images: list[str] | None = None
    vectors: list[Vector] | None = None
    ids: list[ItemId] | None = None
    positive: list[ItemId] = Field(default_factory=list)
    negative: list[ItemId] = Field(default_factory=list)
    k: int = Field(default=10, ge=1)
    min_score: float | None = Field(default=None, ge=-1, le=1)
    filter: MetadataFilter | None = None
    exclude_self: bool = False
    group_by: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SearchIn:
        sources = (self.images, self.vectors, self.ids, self.positive or None)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("a search has exactly one of images, vectors, ids and positive")
        if self.negative and not self.positive:
            raise ValueError("negative examples go with positive ones")
        if self.exclude_self and self.ids is None:
            raise ValueError("exclude_self goes with ids")
        return self


class ModelOut(BaseModel):
    """Which network answered."""

    model: str
    version: str
    fingerprint: str


class ModelState(BaseModel):
    """A bundle of the service: being served, available, or broken, with the reason."""

    model: str
    version: str | None
    fingerprint: str | None
    created: datetime | None
    dim: int | None
    state: Literal["served", "available", "broken"]
    detail: str | None = None


class ModelsOut(BaseModel):
    """All bundles, newest first."""

    models: list[ModelState]


class OpenAIIn(BaseModel):
    """OpenAI's request for embeddings; what else its clients send is not looked at."""

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


class EmbedOut(ModelOut):
    """Embeddings in the order of the request: lists of numbers, or base64 of little-endian values."""

    dim: int
    embeddings: list[list[float]] | list[str]


class Prediction(BaseModel):
    """A class with its probability."""

    label: str
    index: int
    probability: float


class ClassifyOut(ModelOut):
    """For every image its most probable classes, best first."""

    predictions: list[list[Prediction]]


class HitOut(BaseModel):
    """An item that a search found, with its cosine."""

    id: str
    score: float
    metadata: dict[str, Any]


class SearchOut(BaseModel):
    """For every query its nearest items, best first; `kind` says whether every item was compared or only likely ones."""

    results: list[list[HitOut]]
    kind: str


class AddedOut(BaseModel):
    """The ids in the order of the request; all of it is on disk."""

    ids: list[str]
    sequence: int


class DeletedOut(BaseModel):
    """How many items there were to delete; their absence is on disk."""

    deleted: int


class ItemOut(BaseModel):
    """An item of an index; its vector and its thumbnail (base64 of a JPEG) only where they were asked for.

    `sha256` is of the image's file, where there was one.
    """

    id: str
    metadata: dict[str, Any]
    sha256: str | None = None
    vector: list[float] | None = None
    thumbnail: str | None = None


class ItemsOut(BaseModel):
    """A page of items, in the order they were added; `next_cursor` is null on the last one."""

    items: list[ItemOut]
    next_cursor: str | None


class IndexOut(BaseModel):
    """An index and how many items it holds; without a count, it cannot be used now. `detail` says what is wrong with it.

    `device` is where it is searched. `recall` is recall@10 of a compact index against exact search, as `rankone index check`
    measured it last.
    """

    name: str
    count: int | None
    kind: str | None = None
    dtype: str | None = None
    thumbnails: bool | None = None
    device: str | None = None
    recall: float | None = None
    detail: str | None = None


class IndexesOut(BaseModel):
    """All indexes."""

    indexes: list[IndexOut]
