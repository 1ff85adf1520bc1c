"""torchvision reads two of the benchmarks too: the same files, labels and classes on the same tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import DTD, FGVCAircraft

from rankone.training.data import Split
from rankone.training.data.benchmarks import read_aircraft, read_dtd
from tests.training.data.trees import aircraft, dtd


def agree(ours: Split | None, theirs: Any) -> bool:
    assert ours is not None
    return [str(path) for path in ours.paths] == list(map(str, theirs._image_files)) and list(
        ours.labels
    ) == theirs._labels


def test_aircraft(tmp_path: Path) -> None:
    data = read_aircraft(aircraft(tmp_path / "fgvc-aircraft-2013b"), train="train")
    for split, name in ((data.train, "train"), (data.validation, "val"), (data.test, "test")):
        theirs = FGVCAircraft(tmp_path, split=name)
        assert list(data.classes) == theirs.classes
        assert agree(split, theirs)


@pytest.mark.parametrize("partition", [1, 2, 10])
def test_dtd(tmp_path: Path, partition: int) -> None:
    data = read_dtd(dtd(tmp_path / "dtd" / "dtd"), partition)
    for split, name in ((data.train, "train"), (data.validation, "val"), (data.test, "test")):
        theirs = DTD(tmp_path, split=name, partition=partition)
        assert list(data.classes) == theirs.classes
        assert agree(split, theirs)
