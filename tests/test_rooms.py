"""Where a module belongs: which room may import which, no circles, and no file that grew too long."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "rankone.model": "model",
    "rankone.training": "training",
    "rankone.index": "index",
    "rankone.client": "client",
    "rankone.service": "service",
    "rankone.cli": "rankone/cli",
    "benchmarks": "benchmarks",
}
ALLOWED = {
    "rankone.model": set(),
    "rankone.training": {"rankone.model"},
    "rankone.index": {"rankone.model.errors", "rankone.model.files"},
    "rankone.client": {"rankone.model.errors"},
    "rankone.service": {"rankone.model", "rankone.index"},
    "rankone.cli": {
        "rankone.model",
        "rankone.training",
        "rankone.index",
        "rankone.client",
        "rankone.service",
        "benchmarks",
    },
    "benchmarks": {
        "rankone.model",
        "rankone.training",
        "rankone.index",
        "rankone.client",
        "rankone.service",
    },
}
"""What else a room may import; `rankone.cli` imports benchmarks only in the commands that run them."""
MAX_LINES = 300
GENERATED = {"client/sync.py", "client/sync_transport.py"}


def files() -> dict[str, Path]:
    """Every module by its name."""
    found = {}
    for room, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([room, *parts]).removesuffix(".__init__")] = path
    return found


MODULES = files()


def imported(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports anywhere in it, also inside functions and for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [
                name if (name := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            ]
        else:
            continue
        yield from (name for name in names if name in MODULES)


GRAPH = {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return next(room for room in FOLDERS if module == room or module.startswith(f"{room}."))


@pytest.mark.parametrize("room", FOLDERS)
def test_a_room_imports_only_from_the_rooms_before_it(room: str) -> None:
    for module, names in GRAPH.items():
        if room_of(module) != room:
            continue
        for name in names:
            allowed = {room, *ALLOWED[room]}
            assert any(name == one or name.startswith(f"{one}.") for one in allowed), f"{module} imports {name}"


def test_nothing_imports_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            pytest.fail(" -> ".join([*path[path.index(module) :], module]))
        if module not in done:
            for name in sorted(GRAPH[module]):
                visit(name, [*path, module])
            done.add(module)

    for module in sorted(GRAPH):
        visit(module, [])


def test_no_file_is_too_long() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES.values()}
    assert not {name: count for name, count in long.items() if count > MAX_LINES and name not in GENERATED}


def test_torchvision_is_imported_by_functions_alone() -> None:
    """Its import takes two seconds of processor time, which each command would take longer to start."""
    for name, path in MODULES.items():
        if room_of(name) != "benchmarks":
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not any(module.startswith("torchvision") for module in named), name
