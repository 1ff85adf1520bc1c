"""Makes the blocking client, sync.py, from asynchronous.py: `python tests/client/generate.py`. Needs ruff."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parents[2] / "client" / "asynchronous.py"
TARGET: Final = SOURCE.with_name("sync.py")

HEADER: Final = (
    '"""The blocking client. Generated from asynchronous.py by `python tests/client/generate.py`: do not edit."""\n'
)
SUBSTITUTIONS: Final = (
    (r'\A""".*"""\n', HEADER),
    (r"(?m)^.*# async only\n", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\(await (\S+?)\)\.", r"\1."),
    (r"\bawait ", ""),
    (r"\bAsync(BaseTransport|Client|Generator)\b", r"\1"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\baclos(e|ing)\b", r"clos\1"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bmap_concurrently\b(.*), self._concurrency", r"map_sequentially\1"),
    (r"\b(at_least_one, )?map_concurrently\b", "map_sequentially"),
)


def generate(code: str) -> str:
    """The blocking client's code, made from that of the asynchronous one.

    Raises:
        ValueError: a substitution is never used, or something asynchronous is left.
    """
    for pattern, replacement in SUBSTITUTIONS:
        code, count = re.subn(pattern, replacement, code)
        if not count:
            raise ValueError(f"nothing matches {pattern!r}: remove it from SUBSTITUTIONS, or correct it")
    code = _ruff("check", "--select=I,UP028", "--fix", "--unsafe-fixes", code=code)
    code = _ruff("format", code=code)
    if left := re.search(r".*(async(?!hronous\.py)|await|Async|concurren(?!cy import)).*", code):
        raise ValueError(f"still asynchronous: {left[0]!r}; add a substitution, or end the line with `# async only`")
    return code


def _ruff(*arguments: str, code: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--quiet", f"--stdin-filename={TARGET}", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, encoding="utf-8", check=True).stdout


if __name__ == "__main__":
    TARGET.write_text(generate(SOURCE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
