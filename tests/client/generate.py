"""Makes the blocking client from the asynchronous one: `python tests/client/generate.py`. Needs ruff."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

CLIENT: Final = Path(__file__).parents[2] / "client"
TARGETS: Final = {"asynchronous_transport.py": "sync_transport.py", "asynchronous.py": "sync.py"}

HEADER: Final = '"""{summary} Generated from {source} by `python tests/client/generate.py`: do not edit."""\n'
SUMMARIES: Final = {
    "asynchronous_transport.py": "Blocking requests.",
    "asynchronous.py": "The blocking client.",
}
SUBSTITUTIONS: Final = (
    (r"(?m)^.*# async only\n", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\(await (\S+?)\)\.", r"\1."),
    (r"\bawait ", ""),
    (r"\basynchronous_transport\b", "sync_transport"),
    (r"\bAsync(BaseTransport|Client|Generator|Transport)\b", r"\1"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\baclos(e|ing)\b", r"clos\1"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bmap_concurrently\b(.*), self._concurrency", r"map_sequentially\1"),
    (r"\b(at_least_one, )?map_concurrently\b", "map_sequentially"),
)


def generate(sources: Mapping[str, str]) -> dict[str, str]:
    """The blocking client's files, each made from that of the asynchronous one, by their names.

    Raises:
        ValueError: a substitution is never used, or something asynchronous is left.
    """
    for pattern, _ in SUBSTITUTIONS:
        if not any(re.search(pattern, code) for code in sources.values()):
            raise ValueError(f"nothing matches {pattern!r}: remove it from SUBSTITUTIONS, or correct it")
    return {TARGETS[name]: _generated(name, code) for name, code in sources.items()}


def sources() -> dict[str, str]:
    """The files that the blocking client is made from, by their names."""
    return {name: (CLIENT / name).read_text(encoding="utf-8") for name in TARGETS}


def _generated(name: str, code: str) -> str:
    for pattern, replacement in SUBSTITUTIONS:
        code = re.sub(pattern, replacement, code)
    code = re.sub(r'\A""".*"""\n', HEADER.format(summary=SUMMARIES[name], source=name), code)
    code = _ruff("check", "--select=F401,I,UP028", "--fix", "--unsafe-fixes", code=code)
    code = _ruff("format", code=code)
    if left := re.search(r".*(async(?!hronous(?:_transport)?\.py)|await|Async|concurren(?!cy import)).*", code):
        raise ValueError(f"still asynchronous: {left[0]!r}; add a substitution, or end the line with `# async only`")
    return code


def _ruff(*arguments: str, code: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--quiet", f"--stdin-filename={CLIENT / 'sync.py'}", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, encoding="utf-8", check=True).stdout


if __name__ == "__main__":
    for name, text in generate(sources()).items():
        (CLIENT / name).write_text(text, encoding="utf-8", newline="\n")
