"""`rankone evaluate` on the bundle of the session: the served engine's figures are those of training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rankone.__main__ import run
from rankone.model.bundle import Bundle, DatasetRecord, Manifest, open_bundle
from rankone.model.engine import load_engine
from rankone.model.explanation import Explainer
from rankone.model.network import build_network, open_network
from rankone.model.preprocessing import preprocess
from rankone.training.data import DataError, DataSet, load
from rankone.training.evaluate import REPORT, Report, compute_report
from rankone.training.export import Description, write_bundle
from rankone.training.measure import compare_with_training, findings_of, outputs
from rankone.training.metrics import retrieval_scores
from rankone.training.recipe import PoolingRecipe
from rankone.training.report import write_report
from tests.conftest import CLASSES, RECIPE
from tests.training.data.trees import cub, dtd

pytestmark = pytest.mark.usefixtures("_undrawn")


@pytest.fixture
def root(photos: DataSet) -> Path:
    return photos.train.paths[0].parents[2]


def printed(captured: str) -> str:
    """What was printed, however the terminal broke it into lines."""
    return " ".join(captured.split())


@pytest.mark.parametrize("engine", ["onnx", "torchscript"])
def test_the_engine_that_serves_agrees_with_training(
    bundle: Bundle,
    run_path: Path,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    engine: str,
) -> None:
    flags = ["--data", str(root), "--out", str(tmp_path / "out"), "--engine", engine, "--threads", "2"]
    assert run("evaluate", [str(bundle.path), *flags]) == 0
    found, trained = (Report.model_validate_json((path / REPORT).read_bytes()) for path in (tmp_path / "out", run_path))
    assert found.metrics == pytest.approx(trained.metrics, abs=1e-3)
    assert found.metrics == pytest.approx(bundle.manifest.metrics, abs=1e-3)
    assert (found.confusion, found.num_images) == (trained.confusion, len(CLASSES) * 4)
    said = printed(capsys.readouterr().out)
    assert "9 figures agree" in said
    assert "WARNING" not in said
    page = (tmp_path / "out" / "report.html").read_text()
    num_parameters = sum(parameter.numel() for parameter in open_network(bundle).parameters())
    for fact in (bundle.fingerprint, f"{engine} on ", f"{num_parameters:,}"):
        assert fact in page


def test_the_evidence_in_a_report_is_that_of_the_served_features(
    bundle: Bundle, photos: DataSet, tmp_path: Path
) -> None:
    """Where every image is called wrong; the same images in the report of the run and in that of its bundle."""
    wrong = replace(photos, test=replace(photos.test, labels=tuple((label + 1) % 4 for label in photos.test.labels)))
    engine = load_engine(bundle, "onnx", "cpu", 1)
    findings = findings_of(bundle, wrong, engine)
    assert findings.contrasts
    index, contrast = next(iter(findings.contrasts.items()))
    pixels = preprocess(photos.test.paths[index].read_bytes(), bundle.manifest.preprocessing)
    served = engine.run(pixels[None], features=True)
    assert served.features is not None
    assert served.logits is not None
    explainer = Explainer.of(bundle)
    for found, label in ((contrast.taken, int(served.logits[0].argmax())), (contrast.true, wrong.test.labels[index])):
        expected = explainer.of_class(served.features[0], label)
        largest = np.abs(expected.shares).max()
        np.testing.assert_allclose(found.shares, expected.shares, atol=2e-3 * largest)
        assert found.score == pytest.approx(float(served.logits[0, label]), abs=1e-4)
    write_report(findings, tmp_path)
    assert len(list(tmp_path.glob("report/confused-*-taken.png"))) == len(findings.contrasts)
    engine.close()


def test_the_report_lies_beside_the_bundle_and_never_within(
    bundle: Bundle, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "mine"))
    for inside in (copy, copy / "report"):
        assert run("evaluate", [str(copy), "--data", str(root), "--out", str(inside)]) == 2
        assert "is within the bundle" in capsys.readouterr().err
    monkeypatch.chdir(copy)
    assert run("evaluate", [".", "--data", str(root)]) == 0
    assert (tmp_path / "mine-report" / "report.html").exists()
    assert open_bundle(copy).fingerprint == bundle.fingerprint


def test_other_classes_are_refused_and_named(
    bundle: Bundle, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    for split in ("train", "test"):
        (other / split / "coins").rename(other / split / "medals")
    assert run("evaluate", [str(bundle.path), "--data", str(other)]) == 2
    said = capsys.readouterr().err
    assert "1 that the bundle does not know, such as 'medals'; 1 of the bundle are missing, such as 'coins'" in said
    assert run("evaluate", [str(bundle.path), "--data", str(root), "--reader", "partition", "3"]) == 2
    assert "has no options, got partition" in capsys.readouterr().err


def test_the_readers_options_of_the_training_are_for_the_benchmark_it_was_on_alone(
    tiny: Bundle, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class folder has none; those of another benchmark are its own defaults."""
    record = DatasetRecord(name="dtd", num_train=6, num_test=6, split="")
    recipe = {"reader": {"partition": 3, "train": "train", "test": "val+test"}}
    manifest = tiny.manifest.model_copy(update={"recipe": recipe, "dataset": record})
    monkeypatch.setattr("rankone.cli.train.open_bundle", lambda _: tiny.model_copy(update={"manifest": manifest}))
    read: list[DataSet] = []

    def stop(_: Bundle, data: DataSet) -> None:
        read.append(data)
        raise DataError("enough")

    monkeypatch.setattr("rankone.training.measure.check_classes", stop)
    textures, birds = (str(make(tmp_path / make.__name__)) for make in (dtd, cub))
    for data, *flags in ((textures,), (textures, "--reader", "partition", "2"), (str(root),), (birds,)):
        assert run("evaluate", [str(tiny.path), "--data", data, *flags]) == 2
    published = load(textures, recipe["reader"])
    assert [data.name for data in read] == ["dtd", "dtd", root.name, "cub"]
    assert (read[0].test, read[0].protocol) == (published.test, published.protocol)
    assert read[1].test == load(textures, {"partition": 2}).test


def test_a_changed_bundle_is_not_measured(
    tiny: Bundle, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(tiny.path, tmp_path / "copy"))
    with (copy / "model.onnx").open("ab") as file:
        file.write(b"more")
    assert run("evaluate", [str(copy), "--data", str(root)]) == 2
    assert "is not the file its manifest describes" in capsys.readouterr().err


def test_a_bundle_without_classes_is_measured_by_retrieval_on_any(
    photos: DataSet, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RECIPE.model_copy(update={"size": 32, "pooling": PoolingRecipe(system="max")})
    network = build_network(weights="random", pooling=recipe.pooling.composition).eval()
    pixels = np.stack([preprocess(path.read_bytes(), recipe.preprocessing) for path in photos.test.paths])
    alone = Description(name="n", version="1", classes=None, metrics={}, dataset=None)
    write_bundle(network, recipe, pixels[:7], tmp_path / "bundle", alone)
    assert run("evaluate", [str(tmp_path / "bundle"), "--data", str(root)]) == 0
    report = json.loads((tmp_path / "bundle-report" / REPORT).read_text())
    assert report["top1"] is None
    with torch.no_grad():
        expected = retrieval_scores(network(torch.from_numpy(pixels))[0].numpy(), np.array(photos.test.labels))
    assert report["map_at_r"] == pytest.approx(expected["map_at_r"].mean(), abs=1e-3)
    assert "the bundle holds no figures of its training" in printed(capsys.readouterr().out)


def test_rows_belong_to_images_over_all_batches_and_are_those_of_the_network_in_the_bundle(
    bundle: Bundle, photos: DataSet, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankone.training.embeddings.BATCH_SIZE", 5)
    found = outputs(load_engine(bundle, "onnx", "cpu", 2), photos, bundle)
    pixels = np.stack([preprocess(image, bundle.manifest.preprocessing) for image in images])
    with torch.no_grad():
        expected = open_network(bundle).outputs(torch.from_numpy(pixels))
    assert list(found.arrays) == list(expected)
    for name, array in found.arrays.items():
        assert np.allclose(array, expected[name].numpy(), atol=1e-3 if name == "logits" else 1e-4)


@pytest.fixture
def measured() -> Report:
    """1,000 images of two classes, 900 of them recognized."""
    labels = np.arange(1000) % 2
    logits = np.eye(2)[np.where(np.arange(1000) < 900, labels, 1 - labels)]
    return compute_report(np.ones((1000, 1)), logits, labels, ("a", "b"))


@pytest.mark.parametrize(
    ("top1", "name", "said", "alarming"),
    [
        (0.9, "few", "1 figures agree, to 0.0000 (top1)", False),
        (0.904, "few", "1 figures agree, to 0.0040 (top1)", False),
        (0.92, "few", "THE FIGURES DIFFER, top1 0.920 there and 0.900 here", True),
        (0.88, "few", "THE FIGURES DIFFER, top1 0.880 there and 0.900 here", True),
        (
            0.92,
            "more",
            "the bundle's own figures were measured on 1,000 test images of more and cannot be compared",
            False,
        ),
    ],
)
def test_figures_of_the_same_images_are_held_against_each_other(
    bundle: Bundle, measured: Report, top1: float, name: str, said: str, alarming: bool
) -> None:
    record = DatasetRecord(name=name, num_train=1, num_test=1000, split="")
    manifest: Manifest = bundle.manifest.model_copy(update={"metrics": {"top1": top1}, "dataset": record})
    sentence, loud = compare_with_training(manifest, "few", measured)
    assert said in sentence
    assert loud == alarming


def test_retrieval_is_held_against_that_of_training_too(bundle: Bundle, measured: Report) -> None:
    record = DatasetRecord(name="few", num_train=1, num_test=1000, split="")
    figures = {**measured.metrics, "r_precision": measured.r_precision + 0.1}
    manifest = bundle.manifest.model_copy(update={"metrics": figures, "dataset": record})
    sentence, loud = compare_with_training(manifest, "few", measured)
    assert loud
    assert "r_precision" in sentence
    assert "top1" not in sentence


def test_of_few_images_one_may_be_taken_otherwise(bundle: Bundle) -> None:
    report = compute_report(np.ones((4, 1)), np.eye(2)[[0, 0, 1, 0]], np.array([0, 0, 1, 1]), ("a", "b"))
    record = DatasetRecord(name="few", num_train=1, num_test=4, split="")
    for top1, alarming in ((1.0, False), (0.5, False), (0.25, True)):
        manifest = bundle.manifest.model_copy(update={"metrics": {"top1": top1}, "dataset": record})
        assert compare_with_training(manifest, "few", report)[1] == alarming
