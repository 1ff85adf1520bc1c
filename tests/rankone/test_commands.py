"""The commands as a user runs them, in a shell, against a running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rankone.__main__ import COMMANDS
from service.client import Client
from tests.service.conftest import Process, Start, start
from training.datasets import DataSet

__all__ = ["start"]


def rankone(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "COLUMNS": "120"}
    command = [sys.executable, "-m", "rankone", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd)


@pytest.fixture
def service(start: Start) -> Process:
    process: Process = start()
    process.ready().close()
    return process


def test_images_and_folders_to_embeddings_predictions_and_neighbours(
    service: Process, photos: DataSet, tmp_path: Path
) -> None:
    folder = photos.test.paths[0].parents[1]
    url = ("--url", service.url)
    with Client(service.url) as client:
        expected = client.embed(photos.test.paths)

    npy = rankone("embed", folder, "--out", tmp_path / "e.npy", *url)
    assert npy.stdout.split() == [str(path) for path in photos.test.paths], npy.stderr
    assert np.array_equal(np.load(tmp_path / "e.npy"), expected)

    assert rankone("embed", folder, "--out", tmp_path / "e.json", *url).returncode == 0
    records = json.loads((tmp_path / "e.json").read_text())
    assert [record["path"] for record in records] == [str(path) for path in photos.test.paths]
    assert np.allclose([record["embedding"] for record in records], expected)

    lines = rankone("classify", *photos.test.paths[:2], "--top-k", 2, *url).stdout.splitlines()
    assert [len(json.loads(line)["predictions"]) for line in lines] == [2, 2]

    assert "16 images added; the index holds 16" in rankone("add", folder, *url).stdout
    lines = rankone("search", *photos.test.paths[3:5], "--k", 3, *url).stdout.splitlines()
    for line, path in zip(lines, photos.test.paths[3:5], strict=True):
        record = json.loads(line)
        assert record["path"] == record["neighbours"][0]["id"] == str(path)
        assert len(record["neighbours"]) == 3


def test_mistakes_end_with_one_sentence_and_status_2(service: Process, photos: DataSet, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    image = photos.test.paths[0]
    for arguments, sentence in (
        (("embed", "nowhere.png"), "nowhere.png is not there"),
        (("embed", tmp_path / "notes.png", "--url", service.url), "415: image 0: not a JPEG, PNG or WebP file"),
        (("embed", image, "--out", "e.csv"), "e.csv: answers are written to .npy or .json files"),
        (("search", image, "--index", "other", "--url", service.url), "404: there is no index 'other'"),
        (("embed", image, "--url", "http://127.0.0.1:1"), "no service answers at http://127.0.0.1:1"),
        (("train", "nowhere", "run"), "nowhere is neither a directory nor one of: photos"),
        (("train", "photos", "run", "--recipe", "papers"), "there is no recipe papers"),
        (("evaluate", "nowhere", "photos"), "nowhere is not a training run"),
        (("export", "nowhere", photos.train.paths[0].parents[2], "bundle"), "nowhere is not a training run"),
        (("serve", "--bundle", "nowhere"), "nowhere is not a bundle"),
        (("serve", "--host", "0.0.0.0"), "there are no keys"),
        (("bench", "everything"), "there is no benchmark 'everything'; there are: head, sketch"),
    ):
        ended = rankone(*arguments, cwd=tmp_path)
        assert ended.returncode == 2, ended
        assert sentence in ended.stderr + ended.stdout
        assert "Traceback" not in ended.stderr


def test_usage_lists_every_command_and_each_explains_itself() -> None:
    usage = rankone()
    assert usage.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in usage.stdout
        shown = rankone(name, "--help")
        assert shown.returncode == 0, shown.stderr
        assert f"usage: rankone {name}" in shown.stdout
    assert rankone("trian").returncode == 1
    assert "there is no command 'trian'" in rankone("trian").stderr


def test_commands_that_talk_to_a_service_need_no_torch() -> None:
    code = "import sys; import rankone.query, rankone.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_train_evaluate_export_in_a_shell(photos: DataSet, tmp_path: Path) -> None:
    """A recipe, one of its fields overridden by a flag; then every step to a bundle that opens."""
    from model.bundle import open_bundle
    from tests.conftest import RECIPE

    data = photos.train.paths[0].parents[2]
    (tmp_path / "recipe.yaml").write_text(RECIPE.model_copy(update={"size": 32}).yaml())
    flags = ("--recipe", "recipe.yaml", "--phase1.epochs", 5, "--phase2.epochs", 0, "--pooling.options", "dim", 300)
    trained = rankone("train", data, "run", *flags, cwd=tmp_path)
    assert "phase 1: 5 epochs" in trained.stdout, trained.stderr
    measured = rankone("evaluate", "run", data, "--json", cwd=tmp_path)
    assert json.loads(measured.stdout[measured.stdout.index("{") :])["num_images"] == 16
    exported = rankone("export", "run", data, "bundle", "--name", "few", "--version", "7", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert (manifest.name, manifest.version, manifest.dim) == ("few", "7", 300)
    assert manifest.recipe["phase1"]["epochs"] == 5
    assert 0 <= manifest.metrics["top1"] <= 1
