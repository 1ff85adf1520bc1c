"""All tests that load OpenVINO into their process, run in processes of their own.

Should the library end that process, this test fails and says how; the tests of everything else are not lost with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankone.model.bundle import Bundle
from tests.pages import ROOT

FILES = (
    ("tests/model/engine/openvino_cases.py",),
    pytest.param(("tests/model/engine/test_engine.py", "tests/service/test_precision.py"), marks=pytest.mark.slow),
)


@pytest.mark.parametrize("files", FILES, ids=["cases", "contract"])
def test_openvino(bundle: Bundle, int8_bundle: Bundle, tmp_path: Path, files: tuple[str, ...]) -> None:
    shared = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ended = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "pytest",
            "-m",
            "openvino",
            f"--basetemp={tmp_path / 'base'}",
            *files,
        ],
        env={
            **shared,
            "PYTHONPATH": os.getcwd(),
            "RANKONE_TEST_BUNDLE": str(bundle.path),
            "RANKONE_TEST_INT8": str(int8_bundle.path),
        },
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, f"{ended.returncode}\n{ended.stdout[-8000:]}\n{ended.stderr[:4000]}"
    assert " passed" in ended.stdout
