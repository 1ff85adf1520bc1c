"""Filters as SQLite evaluates them, against their table in Python."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankone.index import InvalidFilter, compiled
from rankone.index.filters import MAX_DEPTH, MAX_TERMS
from rankone.index.sqlite_filters import sql_of
from tests.index.oracle import holds

METADATA: list[dict[str, Any]] = [
    {},
    {"a": None},
    {"a": True},
    {"a": False},
    {"a": 0},
    {"a": 1},
    {"a": 1.0},
    {"a": -0.0},
    {"a": 0.1},
    {"a": 2**63 - 1},
    {"a": "1"},
    {"a": ""},
    {"a": "true"},
    {"a": "é"},
    {"a": "E"},
    {"a": 'quote " and \\ backslash'},
    {"a": "\U0001f40c"},
    {"a": []},
    {"a": [1]},
    {"a": {}},
    {"a": {"b": 1}},
    {"a": {"b": {"c": "deep"}}},
    {"a": {"b": None}},
    {"b": 1, "a": {"b": 2}},
    {"a b": 1},
    {"a]": 1, "0": 2},
    {"$x": 1},
    {"a": [None, True, 1, "red", "é\\", [1], {"b": 1}]},
    {"a": [False, 1.0, "1"]},
    {"a": [0, "infrared"]},
    {"a": {"b": ["red"]}},
    {"a.b": 1, "a": {"b": 2}},
    {"a.b": {"c.d": 1}, "$and": 1},
    {"a`b": 1, "`": {"$gt": 2}},
]
FILTERS: list[dict[str, Any]] = [
    *(
        {"a": value}
        for value in (None, True, False, 0, 1, 1.0, 0.1, "1", "", "é", "\U0001f40c", 'quote " and \\ backslash')
    ),
    *({"a": {"$ne": value}} for value in (None, True, 1, "1")),
    *({"a": {operator: value}} for operator in ("$gt", "$gte", "$lt", "$lte") for value in (0, 0.5, "", "E", "é")),
    *({"a": {"$in": values}} for values in ([], [None], [1, "1"], [True, None, 0.1, "é"], [2**63 - 1])),
    *({"a": {"$nin": values}} for values in ([], [None], [1, "1"], [True, None, 0.1, "é"])),
    *(
        {"a": {"$contains": value}}
        for value in (None, True, False, 0, 1, 1.0, 0.1, "red", "1", "", "é", "\\", '"', "B")
    ),
    {"a.b": {"$contains": "red"}},
    {"$not": {"a": {"$contains": 1}}},
    {"`a.b`": 1},
    {"`a.b`.`c.d`": {"$gte": 1}},
    {"`a`.b": 1},
    {"`$x`": 1},
    {"`$and`": {"$exists": True}},
    {"`a``b`": 1},
    {"````.$gt": 2},
    {"a": {"$exists": True}},
    {"a": {"$exists": False}},
    {"a.b": {"$exists": True}},
    {"a.b": 1},
    {"a.b": {"$ne": 1}},
    {"a.b.c": "deep"},
    {"a b": 1},
    {"a]": 1},
    {"0": 2},
    {"a.0": 1},
    {"a": {"$gt": 0, "$lte": 1}},
    {"a": {"$exists": True}, "b": 1},
    {"$or": [{"a": 1}, {"b": 1}]},
    {"$and": [{"a": {"$gte": 0}}, {"a": {"$ne": 1}}]},
    {"$not": {"a": 1}},
    {"$not": {"$or": [{"a": 1}, {"a": {"$gt": "a"}}]}},
]
NAMES = st.sampled_from(["a", "b", "c d", "é", "a.b", "$in", "`"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3),
)
VALUES = st.recursive(
    SCALARS | st.integers(2**63, 2**64 - 1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=5,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
QUOTED = st.sampled_from(["a", "`b`", "c d", "é", "`a.b`", "`$in`", "````"])
FIELDS = st.lists(QUOTED, min_size=1, max_size=2).map(".".join)
OPERATIONS = st.one_of(
    SCALARS.map(lambda value: {"$eq": value}),
    SCALARS.map(lambda value: {"$ne": value}),
    st.lists(SCALARS, max_size=3).map(lambda values: {"$in": values}),
    st.lists(SCALARS, max_size=3).map(lambda values: {"$nin": values}),
    SCALARS.map(lambda value: {"$contains": value}),
    st.booleans().map(lambda value: {"$exists": value}),
    st.tuples(
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
        SCALARS.filter(lambda value: value is not None and not isinstance(value, bool)),
    ).map(lambda pair: {pair[0]: pair[1]}),
)
SOURCES = st.recursive(
    st.dictionaries(FIELDS, SCALARS | OPERATIONS, min_size=1, max_size=2),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=4,
)


def selected(source: dict[str, Any], metadata: list[dict[str, Any]]) -> list[bool]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (metadata TEXT)")
    connection.executemany("INSERT INTO items VALUES (?)", [(orjson.dumps(value).decode(),) for value in metadata])
    text, parameters = sql_of(compiled(source))
    found = [value for (value,) in connection.execute(f"SELECT {text} FROM items", parameters)]  # noqa: S608
    connection.close()
    assert set(found) <= {0, 1}  # never null, which a NOT around it would not turn
    return [bool(value) for value in found]


def as_doubles(value: Any) -> Any:
    """As SQLite reads integers beyond 64 bits, which indexes of earlier versions may hold."""
    if isinstance(value, dict):
        return {name: as_doubles(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_doubles(inner) for inner in value]
    return float(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


@pytest.mark.parametrize("source", FILTERS, ids=str)
def test_every_filter_on_every_kind_of_metadata(source: dict[str, Any]) -> None:
    assert selected(source, METADATA) == [holds(source, metadata) for metadata in METADATA]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(SOURCES, st.lists(OBJECTS, min_size=1, max_size=6))
def test_any_filter_on_any_metadata(source: dict[str, Any], metadata: list[dict[str, Any]]) -> None:
    assert selected(source, metadata) == [holds(source, as_doubles(value)) for value in metadata]


def nested(depth: int) -> dict[str, Any]:
    return {"$not": nested(depth - 1)} if depth else {"a": 1}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ([], "a filter is an object with at least one entry, not []"),
        ({}, "at least one entry"),
        ({"a": {}}, "is neither"),
        ({"a": {"b": 1}}, "no operator 'b' of fields"),
        ({"a": {"$regex": "x"}}, "no operator '$regex' of fields"),
        ({"$nor": [{"a": 1}]}, "no operator '$nor' of filters"),
        ({"$and": []}, "$and takes a list of at least one filter"),
        ({"$or": {"a": 1}}, "$or takes a list"),
        ({"$not": [{"a": 1}]}, "a filter is an object"),
        ({"a": [1]}, "compared with strings, numbers, booleans and null"),
        ({"a": {"$in": [[1]]}}, "compared with strings"),
        ({"a": {"$in": 1}}, "$in takes a list"),
        ({"a": {"$gt": True}}, "only strings and numbers are ordered"),
        ({"a": {"$lt": None}}, "only strings and numbers are ordered"),
        ({"a": {"$exists": 1}}, "$exists takes true or false"),
        ({"": 1}, "'' is no field"),
        ({"a..b": 1}, "'a..b' is no field"),
        ({'a"b': 1}, "is no field"),
        ({"a\\": 1}, "is no field"),
        ({"`a": 1}, "between backticks"),
        ({"a`b": 1}, "between backticks"),
        ({"``": 1}, "between backticks"),
        ({"`a`b": 1}, "between backticks"),
        ({'`a"`': 1}, "between backticks"),
        ({"$x": 1}, "'`$x`'"),
        ({"a": {"$nin": 1}}, "$nin takes a list"),
        ({"a": {"$contains": [1]}}, "$contains takes a string, a number, a boolean or null"),
        ({"a": 2**63}, "the integer 9223372036854775808 is beyond 64 bits"),
        ({"a": {"$in": [1, -(2**63) - 1]}}, "beyond 64 bits"),
        ({"a": {"$gt": 10**30}}, "beyond 64 bits"),
        ({"a": {"$contains": 2**64}}, "beyond 64 bits"),
        ({"a": {"$lt": float("inf")}}, "is not finite"),
        ({"a": float("nan")}, "is not finite"),
        ({"a": {"$in": ["b", "c\0"]}}, "holds the character U+0000"),
        (nested(MAX_DEPTH + 1), "levels"),
        ({"$or": [{"a": 1}] * MAX_TERMS}, "terms"),
    ],
)
def test_what_is_no_filter_is_refused_with_a_reason(source: Any, reason: str) -> None:
    with pytest.raises(InvalidFilter) as refused:
        compiled(source)
    assert reason in str(refused.value)


def test_the_largest_filters_are_not_too_much_for_sqlite() -> None:
    assert selected({"$or": [{"a": {"$in": [value]}} for value in range(MAX_TERMS // 3)]}, [{"a": 1}]) == [True]
    assert selected({"a": {"$in": list(range(10_000))}}, [{"a": 9_999}, {"a": 10_000}]) == [True, False]
    assert selected(nested(MAX_DEPTH), [{"a": 1}]) == [MAX_DEPTH % 2 == 0]
