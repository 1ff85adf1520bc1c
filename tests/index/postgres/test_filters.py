"""Filters as PostgreSQL evaluates them, against their table in Python, as SQLite's are tested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankone.index import compiled
from rankone.index.filters import MAX_DEPTH, MAX_TERMS
from rankone.index.postgres.filters import label, sql_of
from tests.index.oracle import holds
from tests.index.test_filters import FILTERS, METADATA, NAMES, SCALARS, SOURCES, nested
from tests.postgres import Server

VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=5,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def connection(postgres: Server) -> Iterator[Connection]:
    with psycopg.connect(postgres.new_database(), autocommit=True) as connection:
        yield connection


def selected(connection: Connection, source: dict[str, Any], metadata: list[dict[str, Any]]) -> list[bool]:
    text, parameters = sql_of(compiled(source))
    documents = [orjson.dumps(value).decode() for value in metadata]
    query = f"SELECT {text} FROM (SELECT unnest(%s::text[])::jsonb AS document) AS items"  # noqa: S608
    found = [value for (value,) in connection.execute(query, (*parameters, documents))]
    assert set(found) <= {True, False}  # never null, which a NOT around it would not turn
    return found


@pytest.mark.parametrize("source", FILTERS, ids=str)
def test_every_filter_on_every_kind_of_metadata(connection: Connection, source: dict[str, Any]) -> None:
    assert selected(connection, source, METADATA) == [holds(source, metadata) for metadata in METADATA]


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(SOURCES, st.lists(OBJECTS, min_size=1, max_size=6))
def test_any_filter_on_any_metadata(
    connection: Connection, source: dict[str, Any], metadata: list[dict[str, Any]]
) -> None:
    assert selected(connection, source, metadata) == [holds(source, value) for value in metadata]


def test_the_largest_filters_are_not_too_much(connection: Connection) -> None:
    many = {"$or": [{"a": {"$in": [value]}} for value in range(MAX_TERMS // 3)]}
    assert selected(connection, many, [{"a": 1}]) == [True]
    assert selected(connection, {"a": {"$in": list(range(10_000))}}, [{"a": 9_999}, {"a": 10_000}]) == [True, False]
    assert selected(connection, nested(MAX_DEPTH), [{"a": 1}]) == [MAX_DEPTH % 2 == 0]


def test_a_label_is_written_as_it_was_sent(connection: Connection) -> None:
    """jsonb would write 1e16 with all its zeros, and so make one group of two."""
    text, parameters = label(("a", "b"))
    query = f"SELECT {text} FROM (SELECT %s::text AS metadata) AS items"  # noqa: S608
    for value in ('"é\\""', "1.50", "1e16", "null", "true"):
        assert connection.execute(query, (*parameters, f'{{"a": {{"b": {value}}}}}')).fetchone() == (value,)
