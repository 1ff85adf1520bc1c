"""The backbone of a bundle in int8, written as another bundle if it answers almost as in float32."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from rankone.model.bundle import INT8, ONNX, Bundle, Manifest, seal, staged
from rankone.model.engine.base import Engine, Options, Outputs, Precision
from rankone.model.engine.check import probe_cosine
from rankone.model.engine.onnx import OnnxEngine
from rankone.model.int8_record import Compared, Int8Record, Neighbours
from rankone.model.reduction import Floats, Ints, shorten
from rankone.training.data import DataError, DataSet, Split, evenly_spaced
from rankone.training.embeddings import loaded
from rankone.training.forms import ExportError
from rankone.training.int8 import quantized
from rankone.training.metrics import retrieval_scores
from rankone.training.processes import Resources
from rankone.training.progress import print_line

MIN_IMAGES: Final = 50
"""Test images that a comparison needs."""
_NUM_CALIBRATION: Final = 256
_NUM_FEW: Final = 64
_MAX_MEASURED: Final = 500
_NEAREST: Final = 10


def quantize(bundle: Bundle, data: DataSet, out: Path, *, version: str | None = None, workers: int = 0) -> Bundle:
    """Writes the bundle `out`: the same, with its backbone in int8 as well. Or nothing.

    Ranges are measured on training images of `data`, losses on its test images.

    Raises:
        DataError: too few test images, or a file that cannot be read as an image.
        ExportError: int8 loses too much, or the backbone has nothing to compute in int8.
        BundleError: `out` exists.
    """
    manifest = bundle.manifest
    train, test = data.train.spaced(_NUM_CALIBRATION), data.test.spaced(_MAX_MEASURED)
    if len(test) < MIN_IMAGES:
        raise DataError(f"int8 is measured on at least {MIN_IMAGES} test images, and {data.name} has {len(test)}")
    calibration = loaded(train, manifest.preprocessing, Resources(workers=workers), "loading images")
    images = np.concatenate([one.numpy() for one in calibration])
    with staged(out) as stage:
        for name in manifest.files:
            shutil.copy2(bundle.file(name), stage / name)
        print_line(f"measuring ranges on {len(images)} images, which takes minutes")
        few = images[evenly_spaced(len(images), _NUM_FEW)]
        quantized(onnx.load(bundle.file(ONNX)), images, few, stage / INT8)
        record = _measured(stage, manifest, data, test, len(images), workers)
        if record.faults:
            raise ExportError(
                f"int8 loses too much on {len(test):,} images of {data.name}: {'; '.join(record.faults)}. Nothing was "
                "written. cbp-run-mild loses less than cbp-run"
            )
        changes = {
            "version": version or f"{manifest.version}-int8",
            "created": datetime.now(UTC),
            "int8": record,
            "files": {},
        }
        return seal(stage, manifest.model_copy(update=changes), out)


def neighbours(exact: Floats, in_int8: Floats) -> Neighbours:
    """How many nearest neighbours stay, for embeddings (n, d) of the same images in float32 and in int8."""
    before, after = _nearest(exact), _nearest(in_int8)
    shares = [len(set(old) & set(new)) / len(old) for old, new in zip(before, after, strict=True)]
    return Neighbours(
        dim=exact.shape[1], same_first=float((before[:, 0] == after[:, 0]).mean()), same_ten=float(np.mean(shares))
    )


def _measured(
    stage: Path, manifest: Manifest, data: DataSet, test: Split, num_calibration: int, workers: int
) -> Int8Record:
    reference, engine = _engine(stage / ONNX, "float32"), _engine(stage / INT8, "int8")
    exact, in_int8 = _outputs([reference, engine], test, manifest, workers)
    labels = np.array(test.labels)
    short, judged = None, (exact.embedding, in_int8.embedding)
    if manifest.reduction is not None and exact.short is not None and in_int8.short is not None:
        length = manifest.reduction.recommended or manifest.reduction.dim
        judged = (shorten(exact.short, length), shorten(in_int8.short, length))
        short = neighbours(*judged)
    recalls = [float(retrieval_scores(one, labels)["recall_at_1"].mean()) for one in judged]
    return Int8Record(
        source=data.name,
        num_calibration=num_calibration,
        num_images=len(test),
        full=neighbours(exact.embedding, in_int8.embedding),
        short=short,
        recall_at_1=Compared(float32=recalls[0], int8=recalls[1]),
        accuracy=_accuracy(exact, in_int8, labels) if data.classes == manifest.classes else None,
        probe_cosine=probe_cosine(engine, reference, manifest.preprocessing.size),
    )


def _outputs(engines: list[Engine], test: Split, manifest: Manifest, workers: int) -> list[Outputs]:
    """What each engine answers to the same images."""
    shown = loaded(test, manifest.preprocessing, Resources(workers=workers), "comparing")
    found = [[engine.run(images.numpy()) for engine in engines] for images in shown]
    return [Outputs.joined(parts) for parts in zip(*found, strict=True)]


def _accuracy(exact: Outputs, in_int8: Outputs, labels: Ints) -> Compared | None:
    if exact.logits is None or in_int8.logits is None:
        return None
    right = [float((one.argmax(axis=1) == labels).mean()) for one in (exact.logits, in_int8.logits)]
    return Compared(float32=right[0], int8=right[1])


def _nearest(rows: Floats) -> Ints:
    """The ten nearest other rows of each, (n, 10)."""
    scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    ranked: Ints = np.argsort(-scores, axis=1)[:, :_NEAREST]
    return ranked


def _engine(path: Path, precision: Precision) -> Engine:
    return OnnxEngine(path, Options(device="cpu", threads=len(os.sched_getaffinity(0)), precision=precision))
