"""`rankone quantize`: the bundle it writes, the bounds that it keeps, and how the engines run its network in int8."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rankone.__main__ import run
from rankone.model import int8_record
from rankone.model.bundle import INT8, ONNX, Bundle
from rankone.model.engine import EngineError, UnusableNetwork, load_engine
from rankone.model.engine.base import Precision
from rankone.model.engine.check import lowest_cosine
from rankone.model.int8_record import Compared, Int8Record, Neighbours
from rankone.model.preprocessing import preprocess
from rankone.training import quantize, reduce
from rankone.training.data import DataError, DataSet
from rankone.training.forms import ExportError

RECORD = Int8Record(
    source="flowers",
    num_calibration=256,
    num_images=400,
    full=Neighbours(dim=10_000, same_first=0.97, same_ten=0.93),
    short=Neighbours(dim=128, same_first=0.98, same_ten=0.96),
    recall_at_1=Compared(float32=0.9, int8=0.9),
    accuracy=Compared(float32=0.9, int8=0.895),
    probe_cosine=0.999,
)


@pytest.fixture(scope="module", autouse=True)
def few_images() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "MIN_IMAGES", 8)
        patch.setattr(int8_record, "LEAST_SAME", 0.5)
        patch.setattr(int8_record, "MOST_LOST", 1.0)
        yield


@pytest.fixture(scope="module")
def rounded(int8_bundle: Bundle) -> Bundle:
    return int8_bundle


@pytest.fixture
def ready(rounded: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph in int8 is not made again."""
    monkeypatch.setattr(quantize, "quantized", lambda *given: shutil.copy(rounded.file(INT8), given[-1]))


def test_the_bundle_has_all_of_the_old_one_and_a_file_more(bundle: Bundle, rounded: Bundle) -> None:
    before, after = bundle.manifest, rounded.manifest
    assert set(after.files) - set(before.files) == {INT8}
    assert {name: after.files[name] for name in before.files} == dict(before.files)
    assert after.version == f"{before.version}-int8"
    assert after.files[INT8].size < 0.5 * after.files[ONNX].size
    changed = {"version", "created", "int8", "files"}
    assert after.model_dump(exclude=changed) == before.model_dump(exclude=changed)
    record = after.int8
    assert record is not None
    assert (record.num_calibration, record.num_images) == (24, 16)
    assert record.accuracy is not None
    assert record.short is not None
    assert after.reduction is not None
    assert record.short.dim == after.reduction.recommended


def test_the_record_is_what_the_engines_answer(rounded: Bundle, photos: DataSet) -> None:
    spec, labels = rounded.manifest.preprocessing, np.array(photos.test.labels)
    pixels = np.stack([preprocess(path.read_bytes(), spec) for path in photos.test.paths])
    found = {
        precision: load_engine(rounded, "onnx", "cpu", 1, precision).run(pixels) for precision in ("float32", "int8")
    }
    record, cosine = rounded.manifest.int8, lowest_cosine(found["int8"].embedding, found["float32"].embedding)
    assert 0.8 < cosine < 0.99999
    assert record is not None
    assert record.full == quantize.neighbours(found["float32"].embedding, found["int8"].embedding)
    accuracies = {
        name: float((one.logits.argmax(1) == labels).mean()) for name, one in found.items() if one.logits is not None
    }
    assert record.accuracy == Compared(**accuracies)


def test_neighbours_are_counted() -> None:
    """By hand: of three neighbours each, the first row keeps two and its nearest, the others keep all."""
    rows = np.array([[1, 0], [0.9, 0.1], [0.5, 0.5], [0, 1], [0.2, 0.8]], np.float32)
    moved = rows.copy()
    found = quantize.neighbours(rows, moved)
    assert (found.dim, found.same_first, found.same_ten) == (2, 1, 1)
    far = np.eye(40, dtype=np.float32) + 0.1 * np.random.default_rng(0).random((40, 40), np.float32)
    other = far[::-1].copy()
    counted = quantize.neighbours(far, other)
    firsts, tens = [], []
    for number in range(40):
        ranked = [
            sorted((one for one in range(40) if one != number), key=lambda one: -float(rows[number] @ rows[one]))[:10]
            for rows in (far, other)
        ]
        firsts.append(ranked[0][0] == ranked[1][0])
        tens.append(len(set(ranked[0]) & set(ranked[1])) / 10)
    assert counted.same_first == pytest.approx(np.mean(firsts))
    assert counted.same_ten == pytest.approx(np.mean(tens))


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, 0),
        ({"short": None}, 1),  # then the full embedding is judged
        ({"short": Neighbours(dim=128, same_first=1, same_ten=0.949)}, 1),
        ({"accuracy": Compared(float32=0.9, int8=0.889)}, 1),
        ({"accuracy": Compared(float32=0.9, int8=0.89)}, 0),  # 0.010000000000000009 less
        ({"accuracy": Compared(float32=0.9, int8=0.92)}, 0),
        ({"accuracy": None}, 0),
        ({"short": None, "accuracy": Compared(float32=0.9, int8=0.5)}, 2),
    ],
)
def test_bounds(changes: dict[str, object], faults: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_record, "LEAST_SAME", 0.95)
    monkeypatch.setattr(int8_record, "MOST_LOST", 0.01)
    assert len(RECORD.model_copy(update=changes).faults) == faults


@pytest.mark.usefixtures("ready")
def test_what_loses_too_much_is_not_written(
    bundle: Bundle, photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_record, "LEAST_SAME", 1.01)
    with pytest.raises(
        ExportError, match=r"int8 loses too much on 16 images of few: of the ten nearest images by \d+ numbers"
    ):
        quantize.quantize(bundle, photos, tmp_path / "out")
    monkeypatch.setattr(quantize, "MIN_IMAGES", 50)
    with pytest.raises(DataError, match="at least 50 test images, and few has 16"):
        quantize.quantize(bundle, photos, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("ready")
def test_the_command_writes_it_and_a_service_serves_it(
    bundle: Bundle,
    photos: DataSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, out = photos.train.paths[0].parents[2], tmp_path / "out"
    assert run("quantize", [str(bundle.path), str(data), str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "of the ten nearest stay" in printed
    assert "RANKONE_PRECISION=int8" in printed
    monkeypatch.setenv("RANKONE_PRECISION", "int8")
    assert run("serve", ["--check", "--bundle", str(out), "--data", str(tmp_path / "data")]) == 0
    assert "1-int8 by onnx in int8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("onnx", "int8", "has no model.int8.onnx: make a bundle with one by rankone quantize"),
        ("export", "int8", "the export engine on device 'cpu' has no int8: set RANKONE_ENGINE=onnx or openvino"),
        ("onnx", "bfloat16", "no convolution in bfloat16"),
    ],
)
def test_what_cannot_run_in_int8_is_told_so(bundle: Bundle, name: str, precision: Precision, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        load_engine(bundle, name, "cpu", 1, precision)  # type: ignore[arg-type]


def test_another_bundle_may_have_int8(bundle: Bundle) -> None:
    """So a service with several passes over one without it."""
    with pytest.raises(UnusableNetwork):
        load_engine(bundle, "onnx", "cpu", 1, "int8")


def test_an_engine_that_differs_from_the_one_of_the_export_does_not_start(rounded: Bundle) -> None:
    """As on a processor that overflows where others do not."""
    record = rounded.manifest.int8
    assert record is not None
    assert record.least_cosine < record.probe_cosine < 1
    nearer = record.model_copy(update={"probe_cosine": 1.001})
    other = rounded.model_copy(update={"manifest": rounded.manifest.model_copy(update={"int8": nearer})})
    with pytest.raises(EngineError, match="the onnx engine in int8 on CPUExecutionProvider differs from float32"):
        load_engine(other, "onnx", "cpu", 1, "int8")


def test_short_embeddings_that_are_learned_again_drop_it(
    rounded: Bundle, photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is of the network without them."""
    monkeypatch.setattr(reduce, "write_forms", lambda _, manifest, *__: manifest)
    manifest = reduce.reduce_by_classes(rounded, photos, tmp_path / "out").bundle
    assert manifest.int8 is None  # type: ignore[attr-defined]
