"""docs/programs.md: its code runs as it is printed, with the libraries that it names, and its settings exist."""

from __future__ import annotations

import re
import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rankone.client import Client
from rankone.model.bundle import Bundle
from rankone.service.settings import Settings
from tests.pages import ROOT, Shell, blocks, write_flowers

PAGE = "docs/programs.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
OPENAI, LANGCHAIN, LLAMA_INDEX = blocks(PAGE, "python")


@pytest.fixture(scope="module")
def shell(photos_root: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("programs"))
    write_flowers(photos_root / "test", shell.folder / "flowers" / "test", count=4)
    with shell.serving(f"rankone serve --bundle {bundle.path} --max-images 16"):
        yield shell


@pytest.fixture
def expected(shell: Shell) -> npt.NDArray[np.float32]:
    with Client(shell.url) as client:
        return client.embed(sorted((shell.folder / "flowers" / "test").rglob("*.jpg")))


def run(code: str, shell: Shell, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs a block in the folder of the shell; returns its variables."""
    monkeypatch.chdir(shell.folder)
    file = shell.folder / "block.py"
    code = code.replace("http://127.0.0.1:8000", shell.url).replace("photos-cbp-run", bundle.manifest.name)
    file.write_text(code, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        return runpy.run_path(str(file), run_name="__main__")


def test_openai(
    shell: Shell, bundle: Bundle, expected: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(OPENAI, shell, bundle, monkeypatch)
    names = [path.parent.name for path in sorted((shell.folder / "flowers" / "test").rglob("*.jpg"))]
    assert found["model"] == bundle.manifest.name
    np.testing.assert_allclose(found["embedding"], expected[names.index("rose")], atol=1e-6)
    found["client"].close()


@pytest.mark.parametrize("code", [LANGCHAIN, LLAMA_INDEX], ids=["langchain", "llama_index"])
def test_other_libraries(
    shell: Shell, bundle: Bundle, expected: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    embeddings = run(code, shell, bundle, monkeypatch)["embeddings"]
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)


def test_the_settings_exist() -> None:
    named = set(re.findall(r"`([a-z]+_[a-z]+)`", TEXT))
    assert named == {"root_path", "trusted_proxies", "max_images"}
    assert named <= set(Settings.model_fields)


def test_it_stays_short() -> None:
    assert len(TEXT.split()) <= 340
