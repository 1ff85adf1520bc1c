"""Filters as SQLite evaluates them, over metadata that it keeps as JSON. It reads doubles by its own rules.

Every expression is true or false, never null, so that a NOT around it turns it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from rankone.index.filters import (
    Compare,
    Condition,
    Contains,
    Exists,
    Field,
    Filter,
    In,
    Joined,
    Not,
    Scalar,
    Sql,
    joined,
)

_CONSTANTS: Final = {None: "'null'", True: "'true'", False: "'false'"}
_NUMBER: Final = "('integer', 'real')"
_TEXT: Final = "('text')"


def sql_of(where: Filter | None) -> Sql:
    """The filter as SQL; one that always holds, if there is none."""
    return Sql("(1)") if where is None else _sql(where.condition)


def json_path(field: Field) -> str:
    """A metadata field as SQLite's functions for JSON find it."""
    return "$" + "".join(f'."{name}"' for name in field)


def has_scalar(field: Field) -> Sql:
    """The field exists, and is neither a list nor an object."""
    return _has_type(json_path(field), "('text', 'integer', 'real', 'true', 'false', 'null')")


def _sql(condition: Condition) -> Sql:
    match condition:
        case Joined(word, parts):
            return joined(word, map(_sql, parts))
        case Not(part):
            text, parameters = _sql(part)
            return Sql(f"NOT {text}", parameters)
        case In(field, values):
            return _in(json_path(field), values)
        case Compare(field, sign, value):
            types = _TEXT if isinstance(value, str) else _NUMBER
            return _typed(json_path(field), types, f"{sign} json_extract(?, '$[0]')", [value])
        case Contains(field, value):
            return _contains(json_path(field), value)
        case Exists(field):
            return Sql("(json_type(metadata, ?) IS NOT NULL)", (json_path(field),))


def _in(path: str, values: Iterable[Scalar]) -> Sql:
    """Compares with the values of each type apart; with `IN` a JSON list, as SQLite limits the depth of a chain of ORs."""
    values = list(values)
    constants = [_CONSTANTS[value] for value in values if value is None or isinstance(value, bool)]
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    terms = [
        _typed(path, types, "IN (SELECT value FROM json_each(?))", found)
        for types, found in ((_TEXT, texts), (_NUMBER, numbers))
        if found
    ]
    if constants:
        terms.append(_has_type(path, f"({', '.join(constants)})"))
    return joined("OR", terms) if terms else Sql("(0)")


def _contains(path: str, value: Scalar) -> Sql:
    if value is None or isinstance(value, bool):
        return _some_element(path, f"element.type = {_CONSTANTS[value]}")
    types = _TEXT if isinstance(value, str) else _NUMBER
    written = _as_json([value])
    in_list = _some_element(path, f"element.type IN {types} AND element.value = json_extract(?, '$[0]')", written)
    if not isinstance(value, str):
        return in_list
    is_text = _has_type(path, _TEXT)
    text = f"({is_text.text} AND instr(json_extract(metadata, ?), json_extract(?, '$[0]')) > 0)"
    return joined("OR", [in_list, Sql(text, (*is_text.parameters, path, written))])


def _some_element(path: str, condition: str, *parameters: str) -> Sql:
    """The field is a list, and at least one `element` of it, a row of SQLite's json_each, meets the condition."""
    is_list = _has_type(path, "('array')")
    text = f"({is_list.text} AND EXISTS (SELECT 1 FROM json_each(metadata, ?) AS element WHERE {condition}))"  # noqa: S608
    return Sql(text, (*is_list.parameters, path, *parameters))


def _typed(path: str, types: str, comparison: str, values: Sequence[Scalar]) -> Sql:
    """The field has one of these types, and compares with the values, which reach SQLite as JSON like the field itself.

    The type is checked first, so that what is extracted is never null.
    """
    has_type = _has_type(path, types)
    text = f"({has_type.text} AND json_extract(metadata, ?) {comparison})"
    return Sql(text, (*has_type.parameters, path, _as_json(values)))


def _has_type(path: str, types: str) -> Sql:
    return Sql(f"(coalesce(json_type(metadata, ?), '') IN {types})", (path,))


def _as_json(values: Sequence[Scalar]) -> str:
    return orjson.dumps(list(values)).decode()
