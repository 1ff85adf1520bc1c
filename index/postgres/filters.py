"""Filters as PostgreSQL evaluates them, over metadata as jsonb. Numbers are compared as they are written, exactly.

Every expression is true or false, never null, so that a NOT around it turns it.
"""

from __future__ import annotations

from typing import Any

import orjson

from rankone.index.filters import Compare, Condition, Contains, Exists, Field, Filter, In, Joined, Not, Sql, joined

_SCALARS = "('string', 'number', 'boolean', 'null')"


def sql_of(where: Filter | None) -> Sql:
    """The filter as SQL; one that always holds, if there is none."""
    return Sql("true") if where is None else _sql(where.condition)


def has_scalar(field: Field) -> Sql:
    """The field exists, and is neither a list nor an object."""
    return Sql(f"(coalesce(jsonb_typeof({_steps('document', field)}), '') IN {_SCALARS})", field)


def label(field: Field) -> Sql:
    """The field as JSON, as it was written."""
    return Sql(f"({_steps('metadata::json', field)})::text", field)


def _sql(condition: Condition) -> Sql:
    match condition:
        case Joined(word, parts):
            return joined(word, map(_sql, parts))
        case Not(part):
            text, parameters = _sql(part)
            return Sql(f"(NOT {text})", parameters)
        case In(field, values):
            # jsonb compares numbers by value, and never takes a list or an object for a scalar
            among = "(SELECT jsonb_array_elements(%s::text::jsonb))"
            return Sql(f"coalesce({_steps('document', field)} IN {among}, false)", (*field, _json(list(values))))
        case Compare(field, sign, value):
            found = _steps("document", field)
            kind, sort, given = "number", "({})::numeric", "%s::numeric"
            if isinstance(value, str):
                kind, sort, given = "string", "({} #>> '{{}}') COLLATE \"C\"", "%s::text"
            text = f"CASE WHEN jsonb_typeof({found}) = '{kind}' THEN {sort.format(found)} {sign} {given} ELSE false END"
            return Sql(text, (*field, *field, value if isinstance(value, str) else _json(value)))
        case Contains(field, value):
            found = _steps("document", field)
            text = f"WHEN 'array' THEN {found} @> %s::text::jsonb"
            parameters = (*field, *field, _json([value]))
            if isinstance(value, str):
                text += f" WHEN 'string' THEN position(%s::text IN {found} #>> '{{}}') > 0"
                parameters = (*parameters, value, *field)
            return Sql(f"(CASE jsonb_typeof({found}) {text} ELSE false END)", parameters)
        case Exists(field):
            return Sql(f"({_steps('document', field)} IS NOT NULL)", field)


def _steps(document: str, field: Field) -> str:
    """A field in a document. Unlike a path (`#>`), a step by name never takes an element of a list."""
    return document + " -> %s::text" * len(field)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
