"""The commands as a user runs them, in a shell, against a running service."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankone.__main__ import COMMANDS, main, run, usage
from rankone.training.data import DataSet
from rankone.training.processes import DeviceChoice, DeviceError, choose_device
from rankone.training.recipe import Phase, Recipe
from tests.pages import Shell
from tests.services import Process, Start, start

__all__ = ["start"]

FEW, NONE = Phase(epochs=3, learning_rate=1), Phase(epochs=0, learning_rate=1)


def rankone(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "COLUMNS": "120"}
    command = [sys.executable, "-m", "rankone", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd)


@pytest.fixture
def service(start: Start) -> Process:
    process: Process = start()
    process.ready().close()
    return process


def test_warnings_of_libraries_are_lines_of_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["rankone", "--version"])
    with warnings.catch_warnings():  # which restores what shows them
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            main()
        warnings.warn("an odd file", UserWarning, stacklevel=1)
    assert caplog.record_tuples == [("rankone", logging.WARNING, "UserWarning: an odd file")]


@pytest.fixture
def _own_log() -> Iterator[None]:
    """What `serve` does to the log of its process is undone: its stream is closed when the test has ended."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_own_log")
def test_mistakes_end_with_one_sentence_and_status_2(
    service: Process,
    photos: DataSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, as starting each would cost seconds: whatever is not caught would end the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rankone.cli.images.WAIT_S", 1.0)
    (tmp_path / "notes.png").write_text("not an image")
    image = photos.test.paths[0]
    for arguments, sentence in (
        (("embed", "nowhere.png"), "nowhere.png is not there"),
        (("embed", tmp_path / "notes.png", "--url", service.url), "notes.png: not an image: this is text"),
        (("embed", image, "--out", "e.csv"), "e.csv: answers are written to .npy, .json, .jsonl or .parquet files"),
        (("search", image, "--index", "other", "--url", service.url), "404: there is no index 'other'"),
        (("embed", image, "--url", "http://127.0.0.1:1"), "no service answers at http://127.0.0.1:1"),
        (("train", "nowhere", "run"), "nowhere is neither a directory nor one of: photos"),
        (("train", "photos", "run", "--recipe", "papers"), "there is no recipe papers"),
        (("evaluate", "nowhere", "--data", "photos"), "nowhere is not a bundle"),
        (("export", "nowhere", photos.train.paths[0].parents[2], "bundle"), "nowhere is not a training run"),
        (("serve", "--bundle", "nowhere", "--data", "elsewhere"), "nowhere is not a bundle"),
        (("serve", "--host", "0.0.0.0"), "there are no keys"),
        (("bench", "everything"), "there is no benchmark 'everything'; there are: head, sketch"),
    ):
        assert run(arguments[0], [str(argument) for argument in arguments[1:]]) == 2
        assert sentence in capsys.readouterr().err


def test_usage_lists_every_command_and_each_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    listed = usage()
    for name in COMMANDS:
        assert f"\n  {name} " in listed
        with pytest.raises(SystemExit) as ended:
            run(name, ["--help"])
        assert ended.value.code == 0
        assert f"usage: rankone {name}" in capsys.readouterr().out
    unknown = rankone("trian")
    assert (unknown.returncode, "there is no command 'trian'" in unknown.stderr) == (1, True)
    assert rankone().stdout.strip() == listed.strip()


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    done = rankone("--version")
    assert (done.returncode, done.stdout) == (0, f"rankone {version('rankone')}\n")


def test_training_has_under_50_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("train", ["--help"])
    flags = set(re.findall(r"^\W*(--[a-z][a-z0-9.-]+)", capsys.readouterr().out, re.MULTILINE))
    assert {"--phase1.epochs", "--pooling.system", "--cache", "--protocol"} <= flags
    assert len(flags) + len(("data", "run")) < 50


def test_the_help_lists_backbones_systems_and_choices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rankone.model.catalogue import SYSTEMS
    from rankone.model.composition import NORMALIZATIONS, PROJECTIONS, STATISTICS

    with pytest.raises(SystemExit):
        run("train", ["--help"])
    listed = set(re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", capsys.readouterr().out))
    assert {"vgg16", "backbones", *SYSTEMS, *STATISTICS, *NORMALIZATIONS, *PROJECTIONS} <= listed
    assert {"auto", "cuda", "imagenet", "random", "plateau", "step", "cosine", "holdout", "paper"} <= listed
    assert {"photos", "cub", "aircraft", "mit67", "dtd"} <= listed


@pytest.mark.parametrize(
    ("has_gpu", "asked", "device", "reason"),
    [
        (True, "auto", "cuda", "torch finds H200"),
        (True, "cpu", "cpu", "--device cpu"),
        (False, "auto", "cpu", "torch"),
    ],
)
def test_a_gpu_is_used_where_there_is_one_and_the_reason_is_said(
    *, has_gpu: bool, asked: DeviceChoice, device: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "H200")
    chosen, why = choose_device(asked)
    assert chosen == device
    assert reason in why
    if not has_gpu:
        with pytest.raises(DeviceError, match="finds no GPU"):
            choose_device("cuda")


def test_the_demo_goes_the_whole_way_and_again(tmp_path: Path, here: bool, request: pytest.FixtureRequest) -> None:
    """All photographs, small; the second run finds what the first one made.

    In this process VGG16 is a single layer; the slow test, with a process for each command, has the whole network.
    """
    recipe = Recipe(weights="random", size=32, flip=False, validation=0, phase1=FEW, phase2=NONE)
    (tmp_path / "tiny.yaml").write_text(recipe.yaml())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if here:
        request.getfixturevalue("light_network")
        request.getfixturevalue("_undrawn")
    shell = Shell(tmp_path, here=here)
    command = f"rankone demo --recipe tiny.yaml --port {port} --exit"
    first, again = shell.attempt(command), shell.attempt(command)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    for step in (
        "service: onnx on CPUExecutionProvider",
        "embed: 168",
        "classify: accuracy 0.",
        "recall@1 0.",
        "map: 168",
    ):
        assert step in first.stdout
        assert step in again.stdout
    assert "training:" in first.stdout
    assert "training:" not in again.stdout
    assert "168 photographs on disk already" in again.stdout
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        taken = shell.attempt(command)
    assert (taken.returncode, f"something listens on port {port} already" in taken.stderr) == (2, True), taken
    (tmp_path / "tiny.yaml").write_text(recipe.model_copy(update={"seed": 1}).yaml())
    other = shell.attempt("rankone demo --recipe tiny.yaml --exit")
    assert (other.returncode, "was made by another recipe of the same name" in other.stderr) == (2, True)


def test_commands_that_talk_to_a_service_need_no_torch() -> None:
    code = "import sys; import rankone.cli.query, rankone.cli.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_train_evaluate_export_in_a_shell(
    photos: DataSet, tmp_path: Path, here: bool, request: pytest.FixtureRequest
) -> None:
    """A recipe, one of its fields overridden by a flag; then every step to a bundle that opens.

    In this process VGG16 is a single layer; the slow test, with a process for each command, has the whole network.
    """
    from rankone.model.bundle import open_bundle
    from tests.conftest import RECIPE

    if here:
        request.getfixturevalue("light_network")
        request.getfixturevalue("_undrawn")
    shell, data = Shell(tmp_path, here=here), photos.train.paths[0].parents[2]
    (tmp_path / "recipe.yaml").write_text(RECIPE.model_copy(update={"size": 32}).yaml())
    flags = "--recipe recipe.yaml --phase1.epochs 5 --phase2.epochs 0 --pooling.options dim 300"
    trained = shell.attempt(f"rankone train {data} run {flags}")
    assert "device: c" in trained.stdout
    assert "phase 1: 5 epochs" in trained.stdout, trained.stderr
    assert "test images  16" in trained.stdout
    exported = shell.attempt(f"rankone export run {data} bundle --name few --version 7")
    assert exported.returncode == 0, exported.stderr
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert (manifest.name, manifest.version, manifest.dim) == ("few", "7", 300)
    assert manifest.recipe["phase1"]["epochs"] == 5
    assert 0 <= manifest.metrics["top1"] <= 1
    measured = shell.attempt(f"rankone evaluate bundle --data {data}")
    assert "9 figures agree" in " ".join(measured.stdout.split()), measured.stderr
    assert (tmp_path / "bundle-report" / "report.html").exists()
