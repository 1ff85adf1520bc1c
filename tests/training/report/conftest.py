"""Findings made up of plain arrays, on images of a few pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.model.bundle import BackboneRecord, DatasetRecord, Manifest, PoolingRecord
from rankone.model.composition import compose
from rankone.model.preprocessing import Preprocessing
from rankone.model.training_record import EpochRecord, TrainingRecord
from rankone.training.data import DataSet, Split
from rankone.training.report import Findings
from rankone.training.report.findings import Spectrum

HISTORY = TrainingRecord(
    steered_by="9 images held out.",
    chosen=(2, 1),
    history=tuple(
        EpochRecord(phase=phase, epoch=epoch, loss=1.0, train_error=0.5, validation_error=0.6, learning_rate=0.1)
        for phase, epoch in ((1, 0), (1, 1), (2, 0), (2, 1), (2, 2))
    ),
)
MANIFEST = Manifest(
    name="net",
    version="1",
    created=datetime(2026, 11, 25, tzinfo=UTC),
    classes=None,
    dim=10_000,
    pooling=PoolingRecord(
        system="cbp-run", options={}, parts=compose("gram", "rank-one-update", "tensor-sketch").describe()
    ),
    backbone=BackboneRecord(name="vgg16", weights="random"),
    preprocessing=Preprocessing(size=64),
    metrics={},
    recipe={"backbone": "vgg16", "protocol": "holdout"},
    dataset=DatasetRecord(name="few", num_train=9, num_test=6, split="train/ and test/ folders"),
    training=HISTORY,
    libraries={"torch": "2"},
    parity={},
)
Make = Callable[..., Findings]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Findings of one image a label; image i was taken for class `taken[i]`. `changes` are made to the manifest."""

    def findings(
        classes: Sequence[str],
        labels: Sequence[int],
        taken: Sequence[int] | None,
        file_name: str = "{}.png",
        size: tuple[int, int] = (40, 30),
        banner: int = 0,
        changes: dict[str, object] | None = None,
        **others: object,
    ) -> Findings:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        paths = [folder / file_name.format(number) for number in range(len(labels))]
        for number, path in enumerate(paths):
            Image.new("RGB", size, (10 * number, 0, 255)).save(path, "png")
        split = Split(tuple(paths), tuple(labels), banner=banner)
        draw = np.random.default_rng(0)
        vectors = draw.normal(size=(len(labels), 8))
        values = draw.random((4, 6))
        given: dict[str, object] = {
            "data": DataSet("few", tuple(classes), split, split),
            "embeddings": vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
            "logits": None if taken is None else 5 * np.eye(len(classes))[list(taken)],
            "manifest": MANIFEST.model_copy(update=changes or {}),
            "num_parameters": 14_754_692,
            "measured_by": "torch on cpu",
            "measured": datetime(2026, 11, 25, tzinfo=UTC),
            "spectrum": Spectrum(-np.sort(-values), -np.sort(-values / 2), eta=0.5, iterations=3, own=True),
        }
        return Findings(**{**given, **others})  # type: ignore[arg-type]

    return findings
