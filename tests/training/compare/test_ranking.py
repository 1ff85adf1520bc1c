"""The order, what cannot be told apart, what is recommended, and what is written of it."""

from __future__ import annotations

import numpy as np
import pytest

from rankone.training.compare.document import advice, document_of
from rankone.training.compare.measure import Row
from rankone.training.compare.ranking import By, RankedRow, Ranking, ranked, recommended
from rankone.training.report.document import html, markdown
from tests.training.compare.conftest import row


def comparison(rows: list[Row], by: By = "mean", notes: tuple[str, ...] = ()) -> Ranking:
    places = ranked(rows, by)
    return Ranking(
        data="flowers",
        num_classes=3,
        num_train=30,
        num_validation=0,
        num_test=100,
        size=96,
        by=by,
        places=places,
        recommended=recommended(places),
        notes=notes,
        machine="a machine",
    )


def names(places: tuple[RankedRow, ...]) -> list[str]:
    return [place.row.pooling for place in places]


def test_the_best_comes_first_and_the_shortest_as_good_that_can_be_exported_is_recommended(rows: list[Row]) -> None:
    places = ranked(rows, "mean")
    assert names(places) == ["monet-2", "bcnn", "cbp-run", "sum"]
    assert [place.score for place in places] == pytest.approx([0.92, 274 / 300, 0.91, 0.7])
    assert [place.is_as_good for place in places] == [True, True, True, False]
    chosen = recommended(places)
    assert chosen is not None
    assert places[chosen].row.pooling == "cbp-run"
    assert places[0].behind == (0.0, 0.0)
    low, high = places[3].behind
    assert 0.1 < low < 0.22 < high


def test_differences_are_those_of_the_same_images() -> None:
    """Each 90 of 100, but of 100 pairs 20 differ one way and 20 the other, or 3 all one way."""
    better, worse = row("sum", 90, 0, 0), row("max", 87, 0, 0)
    places = ranked([better, worse], "accuracy")
    low, high = places[1].behind
    assert 0 <= low < 0.03 < high < 0.07  # unpaired, it would be -0.06 to 0.12
    mixed = better.model_copy(
        update={"accuracy": better.accuracy.model_copy(update={"outcomes": "01" * 45 + "1" * 10})}
    )
    assert ranked([better, mixed], "accuracy")[1].is_as_good is False


@pytest.mark.parametrize(("by", "first"), [("accuracy", "max"), ("full", "sum"), ("short", "bcnn"), ("mean", "max")])
def test_each_figure_can_rank(by: By, first: str) -> None:
    rows = [row("max", 99, 50, 60), row("sum", 50, 90, 10), row("bcnn", 10, 20, 90)]
    assert names(ranked(rows, by))[0] == first


def test_without_short_embeddings_the_others_rank() -> None:
    rows = [row("max", 90, 50, None), row("sum", 50, 70, None)]
    assert names(ranked(rows, "mean")) == ["max", "sum"]
    assert names(ranked(rows, "short")) == ["sum", "max"]


def test_of_equal_bytes_the_fastest_and_what_is_worse_only_if_the_best_cannot_be_exported() -> None:
    slow, fast = row("sum", 80, 80, 80, ms=50), row("max", 80, 80, 80, ms=20)
    places = ranked([slow, fast], "mean")
    assert places[recommended(places) or 0].row.pooling == "max"
    only = ranked([row("monet", 99, 99, 99, exportable=False), row("sum", 50, 50, 50)], "mean")
    assert recommended(only) == 1
    assert recommended(only[:1]) is None


def test_the_document_says_what_to_take_and_why(rows: list[Row]) -> None:
    found = comparison(rows, notes=("mind the weights",))
    assert "Take vgg16, cbp-run" in advice(found)
    assert "The best score is that of vgg16, monet-2" in advice(found)
    assert "2 other rows are as good within the error" in advice(found)
    assert "What is better cannot be exported" in advice(
        comparison([row("monet", 99, 99, 99, exportable=False), row("sum", 50, 50, 50)])
    )
    assert "better than every other" in advice(comparison([row("max", 99, 99, 99), row("sum", 50, 50, 50)]))
    both = [row("sum", 80, 80, 80), row("max", 79, 80, 80, dim=600)]
    assert "It has the best score. One other row is as good within the error" in advice(comparison(both))
    assert "Nothing that was compared can be exported" in advice(comparison([rows[3]]))
    text = markdown(document_of(found, "pooling: {system: cbp-run}\n"))
    for piece in ("mind the weights", "| 3\\* | vgg16 | cbp-run |", "| 1= | vgg16 | monet-2 (no export) |", "20,000"):
        assert piece in text
    assert "    pooling: {system: cbp-run}" in text
    assert "pooling: {system: cbp-run}" in html(document_of(found, "pooling: {system: cbp-run}\n"))
    assert Ranking.model_validate_json(found.model_dump_json()) == found


def test_the_picture_is_drawn_with_several_backbones_and_without_short_embeddings(rows: list[Row]) -> None:
    several = [*rows, row("sum", 70, 75, None, backbone="resnet18", ms=3)]
    (picture,) = document_of(comparison(several), None).pictures
    (other,) = document_of(comparison(rows), None).pictures
    assert picture.light.startswith(b"\x89PNG")
    assert picture.light != other.light
    assert np.frombuffer(picture.light[16:24], ">u4").min() > 500
