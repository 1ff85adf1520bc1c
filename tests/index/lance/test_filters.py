"""Filters as Lance evaluates them, against their table in Python, as SQLite's are tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rankone.index import compiled
from rankone.index.filters import MAX_DEPTH, MAX_TERMS, path_of
from tests.index.oracle import MISSING, holds, lookup
from tests.index.test_filters import FILTERS, METADATA, NAMES, SCALARS, SOURCES, nested

lance = pytest.importorskip("lance", reason="pylance, of rankone[lance], is not installed")
from rankone.index.lance.filters import document_of, has_scalar, sql_of  # noqa: E402 - needs no Lance, but is of no use without

VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
NUMBERS = (
    st.sampled_from(
        [2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), float(2**63), 1.5, -0.0, 0, 1e25, 1e-7, 5e-324]
    )
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from('"\\\n\x1fu,[]'))


def selected(folder: Path, sources: Sequence[dict[str, Any]], metadata: list[dict[str, Any]]) -> list[list[bool]]:
    return chosen(folder, [sql_of(compiled(source)) for source in sources], metadata)


def chosen(folder: Path, conditions: Sequence[str], metadata: list[dict[str, Any]]) -> list[list[bool]]:
    documents = [orjson.dumps(document_of(orjson.loads(orjson.dumps(value)))).decode() for value in metadata]
    table = pa.table({"number": range(len(documents)), "document": pa.array(documents, pa.json_())})
    dataset = lance.write_dataset(table, folder / "filters.lance", mode="overwrite")
    answers = []
    for sql in conditions:
        found, others = (
            set(dataset.to_table(columns=["number"], filter=one)["number"].to_pylist()) for one in (sql, f"NOT {sql}")
        )
        assert found | others == set(range(len(metadata)))  # never null, which a NOT around it would not turn
        assert not found & others
        answers.append([number in found for number in range(len(metadata))])
    return answers


def expected(sources: Sequence[dict[str, Any]], metadata: list[dict[str, Any]]) -> list[list[bool]]:
    return [[holds(source, value) for value in metadata] for source in sources]


def test_every_filter_on_every_kind_of_metadata(tmp_path: Path) -> None:
    for source, found in zip(FILTERS, selected(tmp_path, FILTERS, METADATA), strict=True):
        assert found == [holds(source, metadata) for metadata in METADATA], source


any_case = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@any_case
@given(st.lists(SOURCES, min_size=3, max_size=3), st.lists(OBJECTS, min_size=1, max_size=6))
def test_any_filter_on_any_metadata(
    tmp_path: Path, sources: list[dict[str, Any]], metadata: list[dict[str, Any]]
) -> None:
    assert selected(tmp_path, sources, metadata) == expected(sources, metadata)


OPERATORS = ("$eq", "$gt", "$gte", "$lt", "$lte", "$contains")


@any_case
@given(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=6))
def test_numbers_are_compared_exactly(tmp_path: Path, value: float, stored: list[float]) -> None:
    metadata = [{"a": number} for number in [*stored, value, [1, *stored], [value]]]
    sources: list[dict[str, Any]] = [{"a": {operator: value}} for operator in OPERATORS]
    assert selected(tmp_path, sources, metadata) == expected(sources, metadata)


@any_case
@example("u000a", ["\n", "\\u000a", "a\\"])
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=6))
def test_strings_are_compared_by_code_point(tmp_path: Path, value: str, stored: list[str]) -> None:
    metadata = [{"a": text} for text in [*stored, value, f'"{value}\n', stored, [*stored, value]]]
    sources: list[dict[str, Any]] = [{"a": {operator: value}} for operator in OPERATORS]
    assert selected(tmp_path, sources, metadata) == expected(sources, metadata)


def test_the_largest_filters_are_not_too_much(tmp_path: Path) -> None:
    many: dict[str, Any] = {"$or": [{"a": {"$in": [value]}} for value in range(MAX_TERMS // 3)]}
    assert selected(tmp_path, [many, nested(MAX_DEPTH)], [{"a": 1}]) == [[True], [MAX_DEPTH % 2 == 0]]
    long = {"a": {"$in": list(range(10_000))}}
    assert selected(tmp_path, [long], [{"a": 9_999}, {"a": 10_000}]) == [[True, False]]


def test_only_scalars_are_labels(tmp_path: Path) -> None:
    for field in ("a", "a.b"):
        values = [lookup(metadata, field) for metadata in METADATA]
        are_labels = [value is not MISSING and not isinstance(value, dict | list) for value in values]
        assert chosen(tmp_path, [has_scalar(path_of(field))], METADATA) == [are_labels]
