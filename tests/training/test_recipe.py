from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from rankone.model.catalogue import composition
from rankone.model.composition import compose
from rankone.training.recipe import Phase, PoolingRecipe, Recipe, RecipeError, load_recipe


def test_the_default_recipe_is_the_papers() -> None:
    recipe = load_recipe("default")
    assert (recipe.backbone, recipe.weights, recipe.size, recipe.pooling.system) == (
        "vgg16",
        "imagenet",
        448,
        "cbp-run",
    )
    assert (recipe.phase1.epochs, recipe.phase1.learning_rate, recipe.phase1.weight_decay) == (50, 1.0, 1e-8)
    assert (recipe.phase2.epochs, recipe.phase2.learning_rate, recipe.phase2.weight_decay) == (40, 0.01, 1e-5)
    assert (recipe.schedule, recipe.patience, recipe.protocol, recipe.validation) == ("cosine", 5, "holdout", 0.1)


@pytest.mark.parametrize(
    ("name", "first", "second", "reader"),
    [
        ("cub", 1.0, 0.02, {}),
        ("aircraft", 0.2, 0.01, {"train": "train+val", "banner": "keep"}),
        ("mit67", 1.0, 0.01, {}),
        ("dtd", 1.0, 0.01, {"partition": 1, "train": "train", "test": "val+test"}),
    ],
)
def test_every_benchmark_has_the_papers_recipe(name: str, first: float, second: float, reader: object) -> None:
    recipe = load_recipe(name)
    assert (recipe.phase1.learning_rate, recipe.phase2.learning_rate, recipe.reader) == (first, second, reader)
    assert recipe == Recipe(
        schedule="plateau",
        pooling=PoolingRecipe(system="cbp-run"),
        reader=recipe.reader,
        phase1=Phase(epochs=50, learning_rate=first, weight_decay=1e-8, batch_size=64),
        phase2=Phase(epochs=40, learning_rate=second, weight_decay=1e-5, batch_size=16),
    )


def test_the_demos_recipe_needs_no_download() -> None:
    assert load_recipe("demo").weights == "random"


def test_a_recipe_survives_yaml(tmp_path: Path) -> None:
    recipe = Recipe(
        size=96, pooling=PoolingRecipe(options={"eta": 0.5, "iterations": 3}), phase1=Phase(epochs=3, learning_rate=2)
    )
    (tmp_path / "recipe.yaml").write_text(recipe.yaml())
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_colours_are_managed_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("color: ignored")
    assert load_recipe(tmp_path / "recipe.yaml").preprocessing.color == "ignored"
    assert Recipe().preprocessing.color == "managed"


def test_large_jpegs_are_reduced_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("jpeg: whole")
    assert load_recipe(tmp_path / "recipe.yaml").preprocessing.jpeg == "whole"
    assert Recipe().preprocessing.jpeg == "reduced"


def test_an_empty_file_is_the_default_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("")
    assert load_recipe(tmp_path / "recipe.yaml") == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise: 96", "sise: Extra inputs are not permitted"),
        ("phase1: {epochs: -1, learning_rate: 1}", r"phase1.epochs: Input should be greater than or equal to 0"),
        ("phase1:", "phase1: Input should be a valid dictionary"),
        ("phase2: {epoch: 3}", "phase2.epoch: Extra inputs are not permitted"),
        ("phase1: {weight_decay: .inf}", "phase1.weight_decay: Input should be a finite number"),
        ("pooling: {system: cpb}", "pooling: Value error, unknown pooling system 'cpb'; known: max, sum, bcnn"),
        ("pooling: {options: {etha: 1}}", "cbp-run has no option etha; it has: eta"),
        ("pooling: {options: {eta: 5}}", r"pooling: Value error, eta must lie in \[0, 2\], got 5"),
        ("pooling: {options: {dim: 0}}", "dim and out_dim must be positive"),
        (
            "pooling: {system: bcnn, statistic: covariance}",
            r"give a system with its options, or parts \(statistic\), not both",
        ),
        ("pooling: {options: {eta: 1}, projection: flatten}", r"give a system .* or parts \(projection\), not both"),
        ("pooling: {statistic: gramm}", "unknown statistic 'gramm'; known: gram, covariance"),
        (
            "pooling: {normalization: {name: newton-schulz, steps: 5}}",
            "newton-schulz has no option steps; it has: iterations",
        ),
        ("pooling: {normalization: {iterations: 5}}", "a part needs a name, got iterations"),
        ("pooling: {options: {iterations: 2.5}}", "iterations must be a whole number, got 2.5"),
        ("pooling: {statistic: max, projection: flatten}", "statistic max is a vector, which takes no projection"),
        ("pooling: {system: lrbp, options: {rank: 600}}", r"rank must lie in \[1, 512\], got 600"),
        ("{accumulate: 20, phase2: {epochs: 1, learning_rate: 1, batch_size: 16}}", "16 images cannot be cut into 20"),
        ("protocol: papers", "protocol: Input should be 'holdout' or 'paper'"),
        ("classifier_rank: 8", "a low-rank classifier reads a low-rank projection: use system lrbp"),
        ("{classifier_rank: 3, pooling: {system: lrbp}}", "rank of the classifier must be even and at least 2, got 3"),
        ("short_side: 64", r"size \(448\) must be positive and at most short_side \(64\)"),
        ("size: 8", "size: Input should be greater than or equal to 16"),
        ("weights: ''", "weights: Value error, must be 'imagenet', 'random' or a file"),
        ("[1, 2", "cannot be read: line 1, column 6: expected"),
        ("size: 64\nflip: true\nsize: 96", "cannot be read: line 3, column 1: size is given twice"),
        ("phase1: {epochs: 1, epochs: 2}", "line 1, column 21: epochs is given twice"),
        ("pooling: {options: {eta: 0.5, 'eta': 0.6}}", "eta is given twice"),
        ("weights: 2026-13-45", "month must be in 1..12"),
        ("[" * 5000, "nested too deeply"),
        ("size: 64\x01", "unacceptable character #x0001"),
        ("1: 2", "1: Keys should be strings"),
        ("just words", "recipe: Input should be a valid dictionary"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_phase_given_in_part_keeps_the_recipes_defaults(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("phase1: {epochs: 1, learning_rate: 0.01}\nphase2: {batch_size: 4}")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.phase1 == Phase(epochs=1, learning_rate=0.01, weight_decay=1e-8, batch_size=64)
    assert recipe.phase2 == Phase(epochs=40, learning_rate=0.01, weight_decay=1e-5, batch_size=4)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_recipe_is_read_in_any_unicode_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "recipe.yaml").write_bytes("size: 64  # côté".encode(encoding))
    assert load_recipe(tmp_path / "recipe.yaml").size == 64


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("size: 64\n# côté".encode("latin-1"), r"not text in UTF-8 \(byte 0xf4 in line 2\): save it as UTF-8"),
        (b"\xff\xfes\0i", "not text in UTF-16"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "recipe.yaml").write_bytes(data)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path)


def test_keys_may_be_merged_and_then_given(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "phase1: &both {epochs: 1, learning_rate: 0.5}\nphase2: {<<: *both, epochs: 2}"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert (recipe.phase1.epochs, recipe.phase2.epochs, recipe.phase2.learning_rate) == (1, 2, 0.5)


def test_a_pooling_is_put_together_by_hand(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "pooling: {statistic: covariance, normalization: {name: newton-schulz, iterations: 3}, "
        "projection: {name: tensor-sketch, dim: 8192}, elementwise: false}"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.pooling.name == "covariance-newton-schulz-tensor-sketch"
    parts = recipe.pooling.composition
    assert (parts.statistic.name, parts.normalization.options, parts.projection.options) == (
        "covariance",
        {"iterations": 3},
        {"dim": 8192, "seed": 0},
    )
    assert (parts.elementwise, parts.root_features) == (False, False)
    (tmp_path / "again.yaml").write_text(recipe.yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_the_recipes_in_the_docs_are_recipes(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs/systems.md").read_text(encoding="utf-8")
    found = re.findall(r"```yaml\n(.*?)```", docs, re.DOTALL)
    assert len(found) == 2
    for number, text in enumerate(found):
        (tmp_path / f"{number}.yaml").write_text(text)
    named, by_hand = (load_recipe(tmp_path / f"{number}.yaml").pooling.composition for number in (0, 1))
    assert named == composition("cbp-run", eta=0.5, dim=8192)
    assert by_hand == compose(
        "covariance", {"name": "newton-schulz", "iterations": 5}, {"name": "tensor-sketch", "dim": 8192}
    )


def test_one_part_alone_is_joined_by_the_plainest_others() -> None:
    parts = PoolingRecipe(normalization="matrix-power").composition
    assert (parts.statistic.name, parts.normalization.name, parts.projection.name) == (
        "gram",
        "matrix-power",
        "flatten",
    )
    assert PoolingRecipe().composition == PoolingRecipe(system="cbp-run").composition


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="no recipe papers: give a YAML file, or one of aircraft, cub, default"):
        load_recipe("papers")


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Recipe().size = 3  # type: ignore[misc]
