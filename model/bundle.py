"""The bundle: what training hands to the service. An incomplete or changed directory is refused.

    manifest.json            what the network is, how it was made and measured, and the sha256 and size of every file
    model.onnx               images (batch, 3, size, size) -> embedding (batch, dim), logits (batch, classes) if there are
                             classes, short (batch, reduction.dim) if there are short embeddings, features if `evidence`
    model.int8.onnx          the same with the backbone in int8, if `rankone quantize` has made it
    model.torchscript.pt     the same as model.onnx
    model.pt2                the same, by torch.export; bundles of the first versions have none
    weights.safetensors      the same, as parameters for `model.network`

Its fingerprint is the sha256 of manifest.json, which names the sha256 of all the rest. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, Field, ValidationError, field_validator

from rankone.model.errors import RankoneError
from rankone.model.evidence import FEATURES, EvidenceRecord
from rankone.model.files import open_regular, sha256_of, sync
from rankone.model.folders import name_of
from rankone.model.int8_record import Int8Record
from rankone.model.preprocessing import EARLIER, Preprocessing
from rankone.model.reduction import ReductionRecord
from rankone.model.training_record import Record, TrainingRecord

MANIFEST: Final = "manifest.json"
ONNX: Final = "model.onnx"
INT8: Final = "model.int8.onnx"
TORCHSCRIPT: Final = "model.torchscript.pt"
PROGRAM: Final = "model.pt2"
WEIGHTS: Final = "weights.safetensors"
_MAX_MANIFEST_BYTES: Final = 100_000_000


class BundleError(RankoneError, ValueError):
    """A directory that is not a bundle, or not the one its manifest describes."""


class FileRecord(Record):
    """What a file of the bundle must be, to the byte."""

    sha256: str
    size: int


PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$")]
"""The name of a file of the bundle's own folder, and of no other."""


class PoolingRecord(Record):
    """The pooling, with all its options spelled out."""

    system: str
    """Its name in the catalogue, or the names of its parts."""
    options: dict[str, float | int | bool]
    """Of all parts together."""
    parts: dict[str, Any]
    """`statistic`, `normalization` and `projection`, each with name and options; `root_features` and `elementwise`."""


class BackboneRecord(Record):
    """The backbone and where its weights came from."""

    name: str
    weights: str


class DatasetRecord(Record):
    """What the network was trained and measured on."""

    name: str
    num_train: int
    num_test: int
    split: str


class ParityRecord(Record):
    """How an exported form compares with the eager float64 network on real images, over all batch sizes.

    Logits differ by `max_logit_difference` of the largest of them, embeddings have a cosine of `min_cosine` or more.
    """

    min_cosine: float
    max_logit_difference: float
    min_short_cosine: float | None = None
    """Of the short embeddings, if there are any."""
    batch_sizes: tuple[int, ...]
    num_images: int


class Manifest(Record):
    """Everything a service or a reader needs to know of a network without opening it."""

    schema_version: Literal[1] = 1
    name: str
    version: str
    created: AwareDatetime
    classes: tuple[str, ...] | None
    dim: int
    pooling: PoolingRecord
    backbone: BackboneRecord
    preprocessing: Preprocessing
    metrics: dict[str, float]
    recipe: dict[str, Any]
    dataset: DatasetRecord | None
    training: TrainingRecord | None = None
    reduction: ReductionRecord | None = None
    """None for a bundle without short embeddings."""
    evidence: EvidenceRecord | None = None
    int8: Int8Record | None = None
    """None for a bundle without `model.int8.onnx`."""
    libraries: dict[str, str]
    parity: dict[str, ParityRecord]
    files: dict[PlainName, FileRecord] = Field(default_factory=dict)

    @property
    def outputs(self) -> dict[str, int]:
        """Names of the outputs of every exported form but `features`, in their order, with their numbers for an image."""
        short = 0 if self.reduction is None else self.reduction.dim
        widths = {"embedding": self.dim, "logits": len(self.classes or ()), "short": short}
        return {name: width for name, width in widths.items() if width}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names of all outputs of every exported form, in their order, with their shapes for an image."""
        vectors: dict[str, tuple[int, ...]] = {name: (width,) for name, width in self.outputs.items()}
        return vectors if self.evidence is None else {**vectors, FEATURES: self.evidence.shape}

    @field_validator("preprocessing", mode="before")
    @classmethod
    def _pixels_of_older_bundles(cls, value: Any) -> Any:
        """Fills in what older bundles do not say: colour profiles are ignored and JPEGs decoded whole."""
        return {**EARLIER, **value} if isinstance(value, dict) else value


class Bundle(Record):
    """A bundle on disk whose files have been checked against its manifest."""

    path: Path
    manifest: Manifest
    fingerprint: str

    def file(self, name: str) -> Path:
        """The path of a file of the bundle.

        Raises:
            BundleError: the bundle has no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no {name}; it has {', '.join(sorted(self.manifest.files))}")
        return self.path / name


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """The manifest of a bundle and its fingerprint, without a look at the other files.

    Raises:
        BundleError: no bundle there, a manifest that is no file or is far too long, or one of another schema.
    """
    try:
        with open_regular(path / MANIFEST) as file:
            raw = file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} is not a bundle: it has no readable {MANIFEST} ({error.strerror})") from error
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{path / MANIFEST} is not a manifest: it is longer than {_MAX_MANIFEST_BYTES:,} bytes")
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise BundleError(f"{path / MANIFEST} is not a manifest this version can read: {error}") from error
    return manifest, hashlib.sha256(raw).hexdigest()


def open_bundle(path: Path) -> Bundle:
    """Reads the manifest and checks the size and sha256 of every file. Files of another size are not read.

    Raises:
        BundleError: no bundle there, a manifest of another schema, or a file that is missing, changed, not listed, or no
            regular file: a link, a pipe or a device.
    """
    manifest, fingerprint = read_manifest(path)
    for name, expected in manifest.files.items():
        _check_file(path / name, expected)
    if strangers := {entry.name for entry in path.iterdir()} - {MANIFEST, *manifest.files}:
        raise BundleError(f"{path} holds files its manifest does not list: {', '.join(sorted(strangers))}")
    return Bundle(path=path, manifest=manifest, fingerprint=fingerprint)


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A temporary directory beside `path` to write the files of a bundle into; gone afterwards, unless `seal`ed.

    Raises:
        BundleError: `path` exists already, or is no text. A bundle is never written over: a service may have it open.
    """
    if name_of(path).encode() != os.fsencode(path):
        raise BundleError(f"{name_of(path)}: a bundle is a directory whose path is plain UTF-8; choose another")
    if path.exists():
        raise BundleError(f"{path} exists already; choose another directory or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{path.name[:32]}.", dir=path.parent))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def seal(stage: Path, manifest: Manifest, path: Path) -> Bundle:
    """Records every file of `stage` in the manifest, syncs all to disk and renames the directory to `path`."""
    files = {entry.name: _record(entry) for entry in sorted(stage.iterdir())}
    text = manifest.model_copy(update={"files": files}).model_dump_json(indent=2)
    (stage / MANIFEST).write_text(text + "\n", encoding="utf-8")
    for entry in [*stage.iterdir(), stage]:
        sync(entry)
    for entry in stage.iterdir():  # some writers make private files, as mkdtemp does; the service is often another user
        entry.chmod(0o644)
    stage.chmod(0o755)
    stage.rename(path)
    sync(path.parent)
    return open_bundle(path)


def summary(bundle: Bundle) -> Mapping[str, str]:
    """The lines that a person wants to see of a bundle."""
    manifest = bundle.manifest
    return {
        "name": f"{manifest.name} {manifest.version}",
        "fingerprint": bundle.fingerprint[:16],
        "network": f"{manifest.backbone.name} ({manifest.backbone.weights}) + {manifest.pooling.system}",
        "pixels": manifest.preprocessing.summary,
        "embedding": f"{manifest.dim:,} dimensions",
        "short": manifest.reduction.summary if manifest.reduction else "none: rankone reduce makes them",
        **({"int8": manifest.int8.summary} if manifest.int8 else {}),
        "classes": str(len(manifest.classes)) if manifest.classes else "none",
    }


def _check_file(path: Path, expected: FileRecord) -> None:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected.size:
                raise BundleError(
                    f"{path} is not the file its manifest describes: {size} bytes, expected {expected.size}"
                )
            sha256 = sha256_of(file)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if sha256 != expected.sha256:
        raise BundleError(
            f"{path} is not the file its manifest describes: sha256 {sha256[:16]}…, not {expected.sha256[:16]}…"
        )


def _record(path: Path) -> FileRecord:
    with open_regular(path) as file:
        return FileRecord(sha256=sha256_of(file), size=os.fstat(file.fileno()).st_size)
