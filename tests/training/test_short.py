"""Short embeddings from images to a bundle; the map itself is tested in tests/model/test_reduction.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rankone.__main__ import run
from rankone.model.bundle import Bundle, DatasetRecord
from rankone.model.engine import load_engine
from rankone.model.errors import Interrupted
from rankone.model.network import open_network
from rankone.model.preprocessing import preprocess
from rankone.model.reduction import LENGTHS, Ints, shorten
from rankone.training import pipeline
from rankone.training.data import DataSet, Split
from rankone.training.metrics import retrieval_scores
from rankone.training.processes import Resources
from rankone.training.run import SHORT
from rankone.training.short import (
    Examples,
    LengthFigures,
    embedded,
    images_of_bundle,
    images_of_run,
    learn,
    learning,
    load_learned,
    measure,
    save_learned,
)
from rankone.training.short.examples import MAX_VIEWS, as_they_are, four_views, one_view, without_classes
from rankone.training.short.figures import recommended
from rankone.training.short.learning import DEFAULT_SHRINKAGE, SHRINKAGES
from tests.training.helpers import SMALL, StopAfter
from tests.training.report.conftest import MANIFEST

pytestmark = pytest.mark.usefixtures("light_backbone", "_undrawn")


def examples(num_classes: int = 8, per_class: int = 6, dim: int = 60, noise: float = 1.0, seed: int = 0) -> Examples:
    """Classes whose centres differ in ten directions, in which they vary little, and are alike in the others."""
    rng = np.random.default_rng(seed)
    centres = np.concatenate([rng.normal(size=(num_classes, 10)), np.zeros((num_classes, dim - 10))], axis=1)
    labels = np.repeat(np.arange(num_classes), per_class)
    rows = (
        centres[labels] + noise * rng.normal(size=(len(labels), dim)) * np.r_[np.full(10, 0.3), np.full(dim - 10, 2.0)]
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Examples(rows.astype(np.float32), np.arange(len(labels)), labels, "drawn")


def test_a_map_learned_from_half_of_the_classes_serves_the_other_half() -> None:
    drawn = examples(num_classes=40)
    learned = learn(drawn)
    report = measure(drawn.embeddings, drawn.groups, learned)
    assert learned.halves is not None
    assert report.unseen is not None
    assert [one.length for one in report.unseen] == [16, 32, 60, 60]  # the last is the full embedding
    *short, full = (one.recall_at_1 for one in report.unseen)
    assert min(short) > full + 0.3
    for side, half in enumerate(learned.halves):
        seen = drawn.at(np.flatnonzero(drawn.groups % 2 == side))
        assert np.allclose(half.mean, seen.embeddings.mean(axis=0), atol=1e-6)


def test_figures_on_unseen_classes_are_those_of_each_half_among_itself() -> None:
    drawn, test = examples(), examples(seed=1)
    learned = learn(drawn)
    assert learned.halves is not None
    report = measure(test.embeddings, test.groups, learned)
    scores = []
    for side, half in enumerate(learned.halves):
        part = np.flatnonzero(test.groups % 2 != side)
        scores.append(retrieval_scores(shorten(half(test.embeddings[part]), 16), test.groups[part])["map_at_r"])
    assert report.unseen is not None
    assert report.unseen[0].map_at_r == pytest.approx(np.concatenate(scores).mean())
    expected = retrieval_scores(shorten(learned.reduction(test.embeddings), 16), test.groups)
    assert report.test[0].r_precision == pytest.approx(expected["r_precision"].mean())
    low, high = report.test[0].intervals["recall_at_1"]
    assert low <= report.test[0].recall_at_1 <= high


def test_of_shrinkages_that_are_equally_good_the_largest_is_taken() -> None:
    assert learn(examples(noise=0.01)).shrinkage == max(SHRINKAGES)


def test_with_too_few_classes_nothing_is_chosen_or_measured_on_unseen_ones() -> None:
    drawn = examples(num_classes=3)
    learned = learn(drawn)
    assert (learned.shrinkage, learned.halves) == (DEFAULT_SHRINKAGE, None)
    assert measure(drawn.embeddings, drawn.groups, learned).unseen is None


def test_very_long_embeddings_get_a_shorter_map(monkeypatch: pytest.MonkeyPatch) -> None:
    assert learning._MAX_NUMBERS // (1 << 18) == 64  # of bilinear pooling without a sketch
    monkeypatch.setattr(learning, "_MAX_NUMBERS", 1 << 18)
    rows = np.random.default_rng(0).normal(size=(90, 1 << 12)).astype(np.float32)
    assert learn(Examples(rows, np.arange(90), np.arange(90) // 2, "")).reduction.dim == 64


def curve(*recalls: float) -> list[LengthFigures]:
    lengths = (*LENGTHS, 10_000)
    return [
        LengthFigures(length=length, recall_at_1=recall, r_precision=0, map_at_r=0, intervals={})
        for length, recall in zip(lengths, recalls, strict=True)
    ]


def test_the_recommended_length_is_where_the_curve_flattens() -> None:
    assert recommended(curve(0.5, 0.6, 0.7, 0.795, 0.80, 0.80, 0.7)) == 128
    assert recommended(curve(0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.9)) == 16  # the full embedding is no short one
    assert recommended(curve(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.1)) == 512


def test_the_map_is_kept_in_the_run(tmp_path: Path) -> None:
    assert load_learned(tmp_path) is None
    learned = learn(examples())
    save_learned(learned, tmp_path)
    again = load_learned(tmp_path)
    assert again is not None
    assert again.record(64) == learned.record(64)
    rows = examples(seed=1).embeddings
    assert np.array_equal(again.reduction(rows), learned.reduction(rows))
    assert again.halves is not None
    assert learned.halves is not None
    assert np.array_equal(again.halves[1](rows), learned.halves[1](rows))


def split(labels: Ints, name: str) -> Split:
    return Split(tuple(Path(f"{name}{i}") for i in range(len(labels))), tuple(labels.tolist()))


def data_of(per_class: int) -> DataSet:
    labels = np.repeat([0, 1], per_class)
    return DataSet("d", ("a", "b"), split(labels, "train"), split(labels, "test"))


def test_images_that_did_not_train_the_network_are_learned_from_where_there_are_enough() -> None:
    many = images_of_run(data_of(40), SMALL)  # 8 of a class are held out
    assert (len(many.images), many.views) == (16, as_they_are)
    assert "did not train the network" in many.source
    few = images_of_run(data_of(10), SMALL)
    assert (len(few.images), few.views) == (20, one_view)
    fewer = images_of_run(data_of(7), SMALL)
    assert (len(fewer.images), fewer.views) == (14, four_views)
    paper = images_of_run(data_of(40), SMALL.model_copy(update={"protocol": "paper"}))
    assert paper.views == one_view  # its held-out images are the test images
    assert not any(path.name.startswith("test") for path in paper.images.paths)
    validated = images_of_run(replace(data_of(4), validation=split(np.repeat([0, 1], 9), "other")), SMALL)
    assert {path.name[:5] for path in validated.images.paths} == {"other"}


def test_a_bundle_learns_from_all_training_images_of_data_that_did_not_train_it() -> None:
    data = data_of(40)
    assert len(images_of_bundle(data, MANIFEST).images) == 80
    trained = MANIFEST.model_copy(
        update={
            "dataset": DatasetRecord(name="d", num_train=80, num_test=80, split="s"),
            "recipe": SMALL.model_dump(mode="json"),
        }
    )
    assert images_of_bundle(data, trained) == images_of_run(data, SMALL)


def test_at_most_so_many_views_pass_through_the_network() -> None:
    labels = np.zeros(3 * MAX_VIEWS, int)
    assert len(without_classes(split(labels, "x")).images) == MAX_VIEWS // 4
    assert (
        len(images_of_bundle(DataSet("d", ("a",), split(labels, "x"), split(labels, "y")), MANIFEST).images)
        == MAX_VIEWS
    )


def test_views_are_mirrored_and_cropped() -> None:
    images = torch.arange(100.0).reshape(1, 1, 10, 10).expand(2, 3, 10, 10)
    plain, mirror, first, second = four_views(images)
    assert torch.equal(plain, images)
    assert torch.equal(mirror, images.flip(3))
    assert first.shape == second.shape == images.shape
    assert float(first[0, 0, 0, 0]) == pytest.approx(float(images[0, 0, 0, 0]))
    assert float(first[0, 0, -1, -1]) == pytest.approx(float(images[0, 0, 7, 7]))
    assert float(second[0, 0, -1, 0]) == pytest.approx(float(images[0, 0, -1, -1]))
    (middle,) = one_view(images)
    assert middle.shape == images.shape
    assert float(middle[0, 0, 0, -1]) == pytest.approx(float(images[0, 0, 1, 1]))
    assert float(middle[0, 0, -1, 0]) == pytest.approx(float(images[0, 0, 8, 8]))


def test_learning_can_be_stopped(photos: DataSet) -> None:
    network = SMALL.build_network(4)
    with pytest.raises(Interrupted):
        embedded(network, images_of_run(photos, SMALL), SMALL.preprocessing, Resources(stop=StopAfter(1)))


@pytest.fixture(scope="module")
def trained_path(light_backbone: None, photos: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("short") / "run"
    pipeline.train(photos, SMALL, path)
    return path


@pytest.fixture(scope="module")
def short_bundle(trained_path: Path, photos: DataSet) -> Bundle:
    pipeline.evaluate(trained_path, photos)
    return pipeline.export(trained_path, photos, trained_path.with_name("bundle"))


def test_training_ends_with_short_embeddings_that_the_report_measures(
    short_bundle: Bundle, trained_path: Path, photos: DataSet
) -> None:
    record, report = short_bundle.manifest.reduction, pipeline.read_report(trained_path)
    assert record is not None
    assert (record.dim, record.lengths, record.method) == (95, (16, 32, 64, 95), "within-class")  # 24 images in 4 views
    assert "24 training images, each also cropped and mirrored" in record.source
    assert report is not None
    assert report.short is not None
    assert record.recommended == report.short.recommended
    assert [one.length for one in report.short.test] == [16, 32, 64, 95, 256]
    assert report.short.test[-1].recall_at_1 == pytest.approx(report.recall_at_1)
    assert report.short.unseen is not None
    text = (trained_path / "report.md").read_text()
    assert "Short embeddings" in text
    assert "Unseen classes" in text
    assert (trained_path / "report" / "short.png").exists()
    learned = load_learned(trained_path)
    pipeline.train(photos, SMALL, trained_path)  # finished: nothing is learned again
    assert learned is not None
    assert (trained_path / SHORT).exists()


@pytest.mark.parametrize("name", ["onnx", "torchscript", "export"])
def test_every_form_gives_the_short_embedding_of_the_network_in_float64(
    short_bundle: Bundle, photos: DataSet, name: str
) -> None:
    pixels = np.stack([preprocess(path.read_bytes(), SMALL.preprocessing) for path in photos.test.paths[:5]])
    network = open_network(short_bundle).double()
    with torch.no_grad():
        expected = network.outputs(torch.from_numpy(pixels).double())
    found = load_engine(short_bundle, name, "cpu", 1).run(pixels)  # type: ignore[arg-type]
    assert list(found.arrays) == list(expected) == ["embedding", "logits", "short"]
    assert found.short is not None
    assert ((found.short * expected["short"].numpy()).sum(axis=1) > 0.99999).all()
    parity = short_bundle.manifest.parity
    assert all(record.min_short_cosine is not None and record.min_short_cosine > 0.99999 for record in parity.values())


def test_a_bundle_without_short_embeddings_gets_them(
    trained_path: Path, photos: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As bundles of earlier versions do: their manifests have no such field, and their forms two outputs."""
    (trained_path / SHORT).rename(tmp_path / SHORT)
    before = pipeline.export(trained_path, photos, tmp_path / "before")
    (tmp_path / SHORT).rename(trained_path / SHORT)
    assert before.manifest.reduction is None
    assert load_engine(before, "onnx", "cpu", 1).run(np.zeros((1, 3, 32, 32), np.float32)).short is None

    data, out = photos.train.paths[0].parents[2], tmp_path / "after"
    assert run("reduce", [str(before.path), str(data), str(out)]) == 0
    after = json.loads((out / "manifest.json").read_text())
    assert after["version"] == "1-short"
    assert after["classes"] == json.loads((before.path / "manifest.json").read_text())["classes"]
    assert after["reduction"]["recommended"] in after["reduction"]["lengths"]
    printed = capsys.readouterr().out
    assert "on unseen classes" in printed
    assert {path.name for path in (tmp_path / "after-report").iterdir()} == {
        "short.html",
        "short.md",
        "short.json",
        "report",
    }
    assert run("reduce", [str(before.path), str(data), str(out)]) == 2  # it exists


def test_images_without_classes_are_whitened(short_bundle: Bundle, photos: DataSet, tmp_path: Path) -> None:
    folder = photos.train.paths[0].parents[1]
    assert run("reduce", [str(short_bundle.path), str(folder), str(tmp_path / "out"), "--unlabelled"]) == 0
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())["reduction"]
    assert (record["method"], record["num_classes"], record["num_images"]) == ("pca", None, 19)
    (tmp_path / "few").mkdir()
    assert run("reduce", [str(short_bundle.path), str(tmp_path / "few"), str(tmp_path / "no"), "--unlabelled"]) == 2
