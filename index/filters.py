r"""Filters on metadata, compiled to SQL over its JSON.

A filter is an object, and all of its entries must hold.

| entry | holds if |
|---|---|
| `{"field": value}`, `{"field": {"$eq": value}}` | the field exists and equals the value |
| `{"field": {"$in": [...]}}` | it equals one of the values; never, if there are none |
| `{"field": {"$ne": value}}`, `{"field": {"$nin": [...]}}` | `$eq` or `$in` does not hold; so also if the field is missing |
| `{"field": {"$contains": value}}` | it is a list with an element that equals the value, or a string of which it is a part |
| `{"field": {"$gt": value}}`, `$gte`, `$lt`, `$lte` | the field exists, has the value's type, and compares like that |
| `{"field": {"$exists": true}}`, `false` | the field exists, even if it is null · it does not exist |
| `{"$and": [...]}`, `{"$or": [...]}`, `{"$not": {...}}` | all · at least one · not, each of a filter |

Values are strings, numbers, booleans and null; only strings and numbers are ordered. Types never mix: "1", 1 and true are
three different values, but 1 equals 1.0. Null equals null, but not a missing field. A list or an object equals nothing and
compares with nothing; it exists. Strings are compared by code point, and case matters. Integers beyond 64 bits are refused,
and doubles are compared as SQLite reads them.

A field is a path of names joined by dots: "a.b" is `b` in the object `a`. A name between backticks may contain dots and begin
with `$`: "`a.b`.c" is `c` in the object `a.b`, and a backtick in it is doubled. Otherwise, what starts with `$` is an operator.
A field cannot name elements of lists, nor names that are empty or contain a quotation mark, a backslash or a control character.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from rankone.index.errors import InvalidFilter

MAX_DEPTH: Final = 16
MAX_TERMS: Final = 256
MAX_VALUES: Final = 10_000
_NAME: Final = re.compile(r'`((?:[^`"\\\x00-\x1f\x7f]|``)+)`|([^`".\\\x00-\x1f\x7f]+)')
_FIELD: Final = re.compile(rf"(?:{_NAME.pattern})(?:\.(?:{_NAME.pattern}))*")
_INT64: Final = range(-(2**63), 2**63)
_ORDER: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS: Final = ("$eq", "$in", "$ne", "$nin", "$contains", "$exists", *_ORDER)
_CONSTANTS: Final = {None: "'null'", True: "'true'", False: "'false'"}
_NUMBER: Final = "('integer', 'real')"
_TEXT: Final = "('text')"


@dataclass(frozen=True)
class Filter:
    """A condition on a row of `items`, and its parameters. It is always true or false, never SQL's null."""

    sql: str
    parameters: tuple[str, ...] = ()

    def __invert__(self) -> Filter:
        return Filter(f"NOT {self.sql}", self.parameters)


def compiled(source: object) -> Filter:
    """The filter as SQL.

    Raises:
        InvalidFilter: it is not in the language, or too large.
    """
    return _Compiler().filter(source, 0)


def path_of(field: str) -> str:
    """A dotted field as SQLite's path.

    Raises:
        InvalidFilter: a name that cannot be looked up.
    """
    if not _FIELD.fullmatch(field):
        raise InvalidFilter(
            f"{field!r} is no field: names joined by dots, without quotation marks and backslashes; a name with a dot or a "
            "backtick in it, or a $ before it, stands between backticks: `a.b`"
        )
    names = [quoted.replace("``", "`") or bare for quoted, bare in _NAME.findall(field)]
    return "$" + "".join(f'."{name}"' for name in names)


def has_scalar(path: str) -> Filter:
    """The field exists, and is neither a list nor an object."""
    return _has_type(path, "('text', 'integer', 'real', 'true', 'false', 'null')")


class _Compiler:
    """Counts the terms of a filter, to limit what it can cost."""

    def __init__(self) -> None:
        self._num_terms = 0

    def filter(self, source: object, depth: int) -> Filter:
        self._num_terms += 1
        if depth > MAX_DEPTH or self._num_terms > MAX_TERMS:
            raise InvalidFilter(f"a filter has at most {MAX_DEPTH} levels and {MAX_TERMS} terms")
        if not isinstance(source, dict) or not source:
            raise InvalidFilter(f"a filter is an object with at least one entry, not {_shown(source)}")
        return _joined("AND", [self._entry(name, value, depth) for name, value in source.items()])

    def _entry(self, name: str, value: object, depth: int) -> Filter:
        if name in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise InvalidFilter(f"{name} takes a list of at least one filter, not {_shown(value)}")
            return _joined(name[1:].upper(), [self.filter(part, depth + 1) for part in value])
        if name == "$not":
            return ~self.filter(value, depth + 1)
        if name.startswith("$"):
            raise InvalidFilter(
                f"there is no operator {name!r} of filters; there are $and, $or and $not (a field of that name is '`{name}`')"
            )
        path = path_of(name)
        if not isinstance(value, dict):
            return _equals_any(path, [value])
        if not value:
            raise InvalidFilter("a field is compared with a value or by operators, and {} is neither")
        self._num_terms += len(value)
        return _joined("AND", [_operation(path, operator, operand) for operator, operand in value.items()])


def _operation(path: str, name: str, operand: object) -> Filter:
    if name in _ORDER:
        return _compares(path, _ORDER[name], operand)
    if name in ("$in", "$nin"):
        if not isinstance(operand, list) or len(operand) > MAX_VALUES:
            raise InvalidFilter(f"{name} takes a list of at most {MAX_VALUES:,} values, not {_shown(operand)}")
        equals = _equals_any(path, operand)
        return equals if name == "$in" else ~equals
    if name in ("$eq", "$ne"):
        equals = _equals_any(path, [operand])
        return equals if name == "$eq" else ~equals
    if name == "$contains":
        return _contains(path, operand)
    if name == "$exists":
        if not isinstance(operand, bool):
            raise InvalidFilter(f"$exists takes true or false, not {_shown(operand)}")
        return Filter(f"(json_type(metadata, ?) IS {'NOT ' if operand else ''}NULL)", (path,))
    known = ", ".join(_OPERATORS)
    raise InvalidFilter(f"there is no operator {name!r} of fields; there are {known} (a field in an object is 'a.b')")


def _equals_any(path: str, values: list[Any]) -> Filter:
    """Compares with the values of each type apart; with `IN` a JSON list, as SQLite limits the depth of a chain of ORs."""
    constants = [_CONSTANTS[value] for value in values if value is None or isinstance(value, bool)]
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(constants) + len(texts) + len(numbers) < len(values):
        raise InvalidFilter(f"fields are compared with strings, numbers, booleans and null, not {_shown(values)}")
    terms = [
        _typed(path, types, "IN (SELECT value FROM json_each(?))", found)
        for types, found in ((_TEXT, texts), (_NUMBER, numbers))
        if found
    ]
    if constants:
        terms.append(_has_type(path, f"({', '.join(constants)})"))
    return _joined("OR", terms) if terms else Filter("(0)")


def _compares(path: str, operator: str, operand: object) -> Filter:
    if isinstance(operand, bool) or not isinstance(operand, str | int | float):
        raise InvalidFilter(f"only strings and numbers are ordered, not {_shown(operand)}")
    types = _TEXT if isinstance(operand, str) else _NUMBER
    return _typed(path, types, f"{operator} json_extract(?, '$[0]')", [operand])


def _contains(path: str, value: object) -> Filter:
    """The field is a list with an element equal to the value, or a string with the value in it."""
    if value is None or isinstance(value, bool):
        return _some_element(path, f"element.type = {_CONSTANTS[value]}")
    if not isinstance(value, str | int | float):
        raise InvalidFilter(f"$contains takes a string, a number, a boolean or null, not {_shown(value)}")
    types = _TEXT if isinstance(value, str) else _NUMBER
    written = _as_json([value])
    in_list = _some_element(path, f"element.type IN {types} AND element.value = json_extract(?, '$[0]')", written)
    if not isinstance(value, str):
        return in_list
    is_text = _has_type(path, _TEXT)
    sql = f"({is_text.sql} AND instr(json_extract(metadata, ?), json_extract(?, '$[0]')) > 0)"
    return _joined("OR", [in_list, Filter(sql, (*is_text.parameters, path, written))])


def _some_element(path: str, condition: str, *parameters: str) -> Filter:
    """The field is a list, and at least one `element` of it, a row of SQLite's json_each, meets the condition."""
    is_list = _has_type(path, "('array')")
    sql = f"({is_list.sql} AND EXISTS (SELECT 1 FROM json_each(metadata, ?) AS element WHERE {condition}))"  # noqa: S608
    return Filter(sql, (*is_list.parameters, path, *parameters))


def _typed(path: str, types: str, comparison: str, values: list[Any]) -> Filter:
    """The field has one of these types, and compares with the values, which reach SQLite as JSON like the field itself.

    The type is checked first, so that what is extracted is never null.
    """
    written = _as_json(values)
    has_type = _has_type(path, types)
    sql = f"({has_type.sql} AND json_extract(metadata, ?) {comparison})"
    return Filter(sql, (*has_type.parameters, path, written))


def _as_json(values: list[Any]) -> str:
    for value in values:
        if isinstance(value, int) and value not in _INT64:
            raise InvalidFilter(
                f"the integer {_shown(value)} is beyond 64 bits (-2^63 to 2^63 - 1) and cannot be compared"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidFilter(f"the number {value} is not finite and cannot be compared")
    try:
        return orjson.dumps(values).decode()
    except TypeError as error:
        raise InvalidFilter(f"a value of the filter cannot be compared: {error}") from error


def _has_type(path: str, types: str) -> Filter:
    return Filter(f"(coalesce(json_type(metadata, ?), '') IN {types})", (path,))


def _joined(word: str, filters: Iterable[Filter]) -> Filter:
    parts = list(filters)
    sql = f"({f' {word} '.join(part.sql for part in parts)})"
    return Filter(sql, tuple(parameter for part in parts for parameter in part.parameters))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
