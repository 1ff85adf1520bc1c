"""Reads YAML in any Unicode encoding, and raises errors for what a plain loader would ignore, such as duplicate keys."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import yaml


class YamlError(ValueError):
    """A text that cannot be read as YAML; the message names the line."""


class _Loader(yaml.SafeLoader):
    """The safe loader, for which a key that is given twice is an error: the first value would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge" else None
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", key.start_mark)
            seen |= {name} if name is not None else set()
        return super().construct_mapping(node, deep)


def parse(data: bytes) -> Any:
    """What a YAML document holds, in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        YamlError: another encoding, a syntax error, a key that is given twice, or a value that its type cannot hold.
    """
    encoding = json.detect_encoding(data)  # by byte order mark or zeros, as YAML's specification does it
    try:
        return yaml.load(data.decode(encoding), _Loader)  # noqa: S506 - a subclass of the safe loader
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x} in line {line}"
        raise YamlError(f"it is not text in {encoding.upper()} ({byte}): save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise YamlError(f"{where}{error.problem or error.context}") from error
    except RecursionError as error:
        raise YamlError("it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as a control character, or month 13 of a date
        raise YamlError(" ".join(str(error).split())) from error
