"""docs/deploy.md: its commands name what there is, and its backup brings an index back."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rankone.__main__ import COMMANDS
from rankone.cli.bench import BENCHMARKS
from rankone.client import Client
from rankone.model.bundle import Bundle
from rankone.service.settings import Settings
from rankone.training.data import DataSet
from tests.docker.files import PROJECT, ROOT, assignments, services
from tests.services import Process

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
RUNS = [line for line in LINES if " run " in line]
TARS = [line for line in RUNS if "--entrypoint tar" in line]


def test_every_profile_and_every_service_exists() -> None:
    assert len(LINES) >= 12
    profiles = {profile for service in services().values() for profile in service["profiles"]}
    assert set(re.findall(r"--profile (\w+)", PAGE)) <= profiles
    for line in LINES:
        words = shlex.split(line.removeprefix("$ "))
        action = next((word for word in words if word in ("up", "run", "stop", "start")), None)
        assert (action is None) == (words[0] != "docker"), line


def test_what_names_no_service_is_the_same_with_a_gpu_and_without() -> None:
    """The one with a GPU has another name than the one without: by name, it would not be there, or ask for a driver."""
    acting = re.findall(r"docker compose (?:stop|start|restart|logs|exec)\b[^`\n]*", PAGE)
    assert len(acting) >= 3
    for command in acting:
        assert not {"service", "service-cpu"} & set(command.split()), command
    assert (
        "`COMPOSE_PROFILES=cpu`" in PAGE.split("## ")[0]
    )  # and where one is named, the page says how it is called there
    assert all("`service-cpu`" in PAGE[: PAGE.index(line)].rsplit("## ", 1)[-1] for line in TARS if " service " in line)


@pytest.mark.parametrize("line", RUNS)
def test_what_runs_once_runs_in_a_service_and_is_a_command(line: str) -> None:
    words = shlex.split(line.split(" run ")[1])
    options = []
    while words[0].startswith("-"):
        count = 2 if words[0] in ("-v", "-w", "-e", "--user", "--entrypoint") else 1
        options.append(words[:count])
        words = words[count:]
    service, *command = words
    assert service in services()
    if [
        "--entrypoint",
        "python",
    ] in options:  # what is not in the image runs from a clone, mounted where it is looked for
        assert (command[:2], options[1:3]) == (["-m", "rankone"], [["-v", ".:/source"], ["-w", "/source"]])
        command = command[2:]
        assert "COPY benchmarks" not in DOCKERFILE
        assert command[1] in BENCHMARKS
    assert {"tar", "cat"} & {option[-1] for option in options if option[0] == "--entrypoint"} or command[0] in COMMANDS


def test_every_variable_can_be_set() -> None:
    known = {*assignments(".env.example"), *(f"RANKONE_{name.upper()}" for name in Settings.model_fields)}
    assert set(re.findall(r"RANKONE_[A-Z_]+", PAGE)) <= known


def test_every_variable_has_the_default_that_the_page_says() -> None:
    defaults = assignments(".env.example")
    said = re.findall(r"`(RANKONE_[A-Z_]+)`[\w\s]*\s\(`?([^)`]+)`?\)", PAGE)
    assert len(said) >= 6
    for name, value in said:
        assert defaults[name] == value, name


def test_the_page_is_short() -> None:
    assert len(PAGE.split()) <= 740


def test_the_images_are_those_of_compose() -> None:
    named = set(re.findall(r"`(rankone:[\w.-]+)`", PAGE))
    assert named == {service["image"] for service in services().values() if "build" in service}
    assert all(PROJECT["version"] in name for name in named)


@contextmanager
def running(root: Path) -> Iterator[Client]:
    """The service on the volumes in `root`, while the block runs."""
    process = Process(root / "bundles" / "first", root / "data")
    try:
        with process.ready() as client:
            yield client
        process.end()
    finally:
        process.close()


def test_the_backup_brings_bundle_and_index_back(tiny: Bundle, photos: DataSet, tmp_path: Path) -> None:
    """The page's own tar commands, where the containers' volumes are two folders here."""
    host, other = tmp_path / "host", tmp_path / "other"
    for folder in (host / "data", other / "bundles", other / "data"):
        folder.mkdir(parents=True)
    shutil.copytree(tiny.path, host / "bundles" / "first")
    with running(host) as client:
        client.add(photos.test.paths[:3], ["a", "b", "c"])
    backup, *restores = [line.split("--entrypoint tar ")[1].split(" ", 1)[1] for line in TARS]
    assert len(restores) == 2
    for root, arguments in ((host, backup), *((other, restore) for restore in restores)):
        command = f"tar {arguments.replace('-C /', f'-C {root}')}"
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    with running(other) as client:
        assert client.count() == 3
