"""Filters as Lance evaluates them, over a document that is made of the metadata when it is published.

`json_extract` answers a field as compact JSON, which tells its type; null if there is none. In a document, a number that is an
integer of 64 bits is written as one, so that such numbers are equal if their texts are, and a list holds no lists or objects.
Every expression is true or false, never null, so that a NOT around it turns it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import orjson

from rankone.index.filters import Compare, Condition, Contains, Exists, Field, Filter, In, Joined, Not, Scalar, Sign

_INT64: Final = range(-(2**63), 2**63)
_CHARACTER: Final = r"(?:[^\\]|\\[^u]|\\u[0-9a-f]{4})"
"""Of a string, as JSON writes it."""
_ELEMENT: Final = r'(?:[^",]+|"(?:[^"\\]|\\.)*")'
"""Of a list, as JSON writes it."""


def document_of(metadata: Any) -> Any:
    """The metadata as filters see it."""
    if isinstance(metadata, dict):
        return {name: document_of(value) for name, value in metadata.items()}
    if isinstance(metadata, list):
        return [document_of(value) for value in metadata if not isinstance(value, dict | list)]
    return metadata if isinstance(metadata, str | bool | None) else _number(metadata)


def sql_of(where: Filter | None) -> str:
    """The filter as SQL; one that always holds, if there is none."""
    return "true" if where is None else _sql(where.condition)


def has_scalar(field: Field) -> str:
    """The field exists, and is neither a list nor an object."""
    return f"coalesce(NOT regexp_like({_json_of(field)}, '^[\\[{{]'), false)"


def quoted(value: str) -> str:
    """A string as SQL."""
    return "'" + value.replace("'", "''") + "'"


def _sql(condition: Condition) -> str:
    match condition:
        case Joined(word, parts):
            return f"({f' {word} '.join(map(_sql, parts))})"
        case Not(part):
            return f"(NOT {_sql(part)})"
        case In(field, values):
            return _in(field, values)
        case Compare(field, sign, value):
            return _texts(field, sign, value) if isinstance(value, str) else _numbers(field, sign, value)
        case Contains(field, value):
            return _contains(field, value)
        case Exists(field):
            return f"({_json_of(field)} IS NOT NULL)"


def _in(field: Field, values: Iterable[Scalar]) -> str:
    """Compares texts, but for numbers that can be written in several ways."""
    numbers = [_number(value) if _is_number(value) else value for value in values]
    texts = [quoted(_written(value)) for value in numbers if not isinstance(value, float)]
    floats = [_double(value) for value in numbers if isinstance(value, float)]
    terms = [f"coalesce({_json_of(field)} IN ({', '.join(texts)}), false)"] if texts else []
    if floats:
        terms.append(f"({_integer(field)} IS NULL AND coalesce({_float(field)} IN ({', '.join(floats)}), false))")
    return f"({' OR '.join(terms) or 'false'})"


def _texts(field: Field, sign: Sign, value: str) -> str:
    """Compares strings by a JSON path, which decodes them."""
    meets = f"json_exists(document, {quoted(f'{_path(field)}?(@ {sign} {_written(value)})')})"
    if not value:  # Lance reads no path with an empty string
        is_empty = f"{_json_of(field)} = '\"\"'"
        meets = {">": f"NOT {is_empty}", ">=": "true", "<": "false", "<=": is_empty}[sign]
    return f"(coalesce(starts_with({_json_of(field)}, '\"'), false) AND coalesce({meets}, false))"


def _numbers(field: Field, sign: Sign, value: float) -> str:
    """Compares exactly: integers with an integer, and other numbers with the double nearest to the value."""
    bound = math.floor(value) if sign in (">", "<=") else math.ceil(value)  # of the integers, n > 1.5 are those > 1
    integers = f"{_integer(field)} {sign} {bound}"
    if bound not in _INT64:
        integers = f"({_integer(field)} IS NOT NULL AND {str((bound < 0) == (sign[0] == '>')).lower()})"
    near = float(value)
    if near != value:
        sign = ("<" if near > value else "<=") if sign[0] == "<" else (">=" if near > value else ">")
    others = f"({_integer(field)} IS NULL AND {_float(field)} {sign} {_double(near)})"
    return f"(coalesce({integers}, false) OR coalesce({others}, false))"


def _contains(field: Field, value: Scalar) -> str:
    texts = "|".join(map(re.escape, _ways(_number(value)) if _is_number(value) else [_written(value)]))
    terms = [rf"^\[(?:{_ELEMENT},)*(?:{texts})[,\]]"]
    if isinstance(value, str):
        terms.append(rf'^"{_CHARACTER}*?{re.escape(_written(value)[1:-1])}')
    matches = (f"coalesce(regexp_like({_json_of(field)}, {quoted(term)}), false)" for term in terms)
    return f"({' OR '.join(matches)})"


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> int | float:
    """An integer, if it is one of 64 bits; otherwise a float."""
    return int(value) if value == int(value) and int(value) in _INT64 else float(value)


def _ways(value: float) -> set[str]:
    """The ways in which JSON may write a number."""
    if isinstance(value, int):
        return {str(value)}
    digits, _, exponent = f"{Decimal(repr(value)):e}".partition("e")
    sign = exponent[0].replace("-", "")
    return {
        repr(value),
        f"{Decimal(repr(value)):f}",
        f"{Decimal(repr(value)):f}.0",
        f"{digits}e{int(exponent)}",
        f"{digits}e{sign}{int(exponent)}",
    }


def _path(field: Field) -> str:
    return "$" + "".join(f'."{name}"' for name in field)


def _json_of(field: Field) -> str:
    return f"json_extract(document, {quoted(_path(field))})"


def _integer(field: Field) -> str:
    return f"try_cast({_json_of(field)} AS bigint)"


def _float(field: Field) -> str:
    return f"try_cast({_json_of(field)} AS double)"


def _double(value: float) -> str:
    return f"CAST('{value!r}' AS double)"


def _written(value: Scalar) -> str:
    return orjson.dumps(value).decode()
