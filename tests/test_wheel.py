"""The wheel: one importable name, and a bare installation that is the client and its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def needed(requirements: Iterable[str]) -> Iterator[str]:
    """The distributions that are required without an extra, and those that they require in turn."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name
            yield from needed(distribution(requirement.name).requires or [])


def environment(wheel: Path, home: Path) -> tuple[Path, Path]:
    """A new environment with the wheel in it: its interpreter, and its folder of packages."""
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return home / "bin" / "python", site


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what the wheel requires, and nothing else. The packages are linked from here, so no network is needed."""
    python, site = environment(wheel, tmp_path_factory.mktemp("bare"))
    (about,) = site.glob("rankone-*.dist-info")
    for name in sorted(set(needed(Distribution.at(about).requires or []))):
        for file in distribution(name).files or []:
            top = file.parts[0]
            if top != ".." and not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    return python


@pytest.fixture(scope="module")
def complete(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all the packages that are here."""
    python, site = environment(wheel, tmp_path_factory.mktemp("complete"))
    (site / "here.pth").write_text(f"{distribution('numpy').locate_file('')}\n")
    return python


@pytest.fixture
def own_project(tmp_path: Path) -> Path:
    """A folder of somebody who has modules of the same names as our folders."""
    for name in ("model.py", "service/__init__.py", "training/__init__.py", "index.py", "client.py", "benchmarks.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise ImportError('the user has a module of this name')\n")
    return tmp_path


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"rankone"}
    for file in ("py.typed", "model/network.py", "training/recipes/demo.yaml", "training/report/report.css"):
        assert f"rankone/{file}" in names
    page = {f"rankone/service/web/{path.name}" for path in (ROOT / "service" / "web").iterdir()}
    assert page <= set(names)
    assert {"rankone/service/web/index.html", "rankone/service/web/main.js", "rankone/service/web/style.css"} <= page
    for room in ("cli", "client", "index", "service"):
        assert f"rankone/{room}/__init__.py" in names


def test_the_bare_package_is_the_client_and_its_commands(bare: Path, own_project: Path) -> None:
    ended = run(bare, own_project, "-m", "rankone", "--version")
    assert (ended.returncode, ended.stdout.split()[0]) == (0, "rankone"), ended.stderr
    ended = run(bare, own_project, "-c", "from rankone.client import Client; print(Client().url)")
    assert ended.returncode == 0, ended.stderr
    for command in ("embed", "classify", "add", "search"):
        ended = run(bare, own_project, "-m", "rankone", command, "--help")
        assert (ended.returncode, "--service.url" in ended.stdout or "--url" in ended.stdout) == (0, True), ended.stderr


def test_a_bare_installation_is_examined_and_said_to_be_one(bare: Path, own_project: Path) -> None:
    ended = run(bare, own_project, "-m", "rankone", "doctor", "--json")
    assert ended.returncode == 0, ended.stderr
    body = json.loads(ended.stdout)
    assert body["versions"]["torch"] is None
    assert {"onnxruntime", "faiss-cpu", "fastapi"} <= set(body["extras"]["cpu"]["missing"])
    skipped = {finding["area"]: finding["says"] for finding in body["findings"] if finding["state"] == "skipped"}
    assert "rankone[train]" in skipped["training"]
    assert "rankone[cpu]" in skipped["service"]


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("train IMAGES RUN", "rankone[train]"),
        ("data verify photos IMAGES", "rankone[train]"),
        ("demo", "rankone[train]"),
        ("serve", "rankone[cpu]"),
        ("index verify FOLDER", "rankone[cpu]"),
    ],
)
def test_a_command_that_needs_more_says_what(bare: Path, own_project: Path, command: str, extra: str) -> None:
    ended = run(bare, own_project, "-m", "rankone", *command.split())
    assert (ended.returncode, extra in ended.stderr) == (2, True), ended.stderr


@pytest.mark.parametrize("command", ["train", "serve"])
def test_every_command_runs_beside_modules_of_the_same_names(complete: Path, own_project: Path, command: str) -> None:
    ended = run(complete, own_project, "-m", "rankone", command, "--help")
    assert (ended.returncode, ended.stdout.startswith("usage: rankone")) == (0, True), ended.stderr


def test_benchmarks_are_not_installed(complete: Path, own_project: Path) -> None:
    (own_project / "benchmarks.py").unlink()
    ended = run(complete, own_project, "-m", "rankone", "bench", "head")
    assert (ended.returncode, "from a clone of the repository" in ended.stderr) == (2, True), ended.stderr
