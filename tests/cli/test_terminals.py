"""Where the output of a command goes: nowhere, to a full disk, to a terminal that knows few characters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankone.cli.output import InputError, writing


def start(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    variables = {"PYTHONPATH": os.getcwd(), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "rankone", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, env={**os.environ, **variables}, **pipes)  # type: ignore[call-overload, no-any-return]


def test_output_that_nobody_reads_ends_a_command_quietly() -> None:
    """As `rankone embed --help | head` does when head is done."""
    process = start("embed", "--help")
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (141, b"")


def test_output_on_a_full_disk_is_a_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        _, errors = start(stdout=full).communicate(timeout=120)
    assert b"No space left on device" in errors
    assert b"Traceback" not in errors


def test_a_terminal_that_knows_few_characters_gets_escapes() -> None:
    asked, wrong = start("embed", "--help"), start("embed", "nowhere-日本.png")
    usage, errors = asked.communicate(timeout=120)
    assert (asked.returncode, errors) == (0, b"")
    assert b"usage: rankone embed" in usage
    assert b"\\u25" not in usage  # no frames of escapes
    assert b"nowhere-\\u65e5\\u672c.png is not there" in wrong.communicate(timeout=120)[1]


def test_a_closed_standard_output_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InputError, match="standard output is closed: give a file"):
        writing(None, "embedding")


@pytest.mark.parametrize("suffix", [".npy", ".json", ".jsonl", ".parquet"])
def test_what_came_before_a_failure_is_kept_whole(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    import numpy as np
    import pyarrow.parquet as pq

    out, partial = tmp_path / f"e{suffix}", tmp_path / f"e.partial{suffix}"

    def answer(out: Path, values: list[int]) -> None:
        with writing(out, "embedding") as write:
            for value in values:
                write(str(value), np.full(3, value, np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer(out, [1, 0])
    assert not out.exists()
    assert f"{partial} holds the 2 answers that came before" in capsys.readouterr().err
    if suffix == ".npy":
        rows = np.load(partial).tolist()
    elif suffix == ".parquet":
        rows = pq.read_table(partial).column("embedding").to_pylist()
    else:
        text = partial.read_text()
        records = json.loads(text) if suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        rows = [record["embedding"] for record in records]
    assert rows == [[1, 1, 1], [0, 0, 0]]
    with pytest.raises(KeyboardInterrupt):
        answer(tmp_path / f"f{suffix}", [])
    assert [path.name for path in tmp_path.iterdir()] == [partial.name]
