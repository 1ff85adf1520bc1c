"""Has faiss multiply matrices with the widest instructions of this processor. Imported before faiss.

faiss's wheels bring an OpenBLAS of 2021. It takes processors that it does not know for one of 2004, and is then four times
slower: of Intel, all since Sapphire Rapids.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

_CORES: Final = {
    "SKYLAKEX": {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"},
    "HASWELL": {"avx2", "fma"},
}
"""OpenBLAS's name for a set of instructions, and what Linux calls them; the best first."""
_SETTING: Final = "OPENBLAS_CORETYPE"


def core_of(cpuinfo: str) -> str | None:
    """The best core that a processor can be, by the text of /proc/cpuinfo; None if OpenBLAS should find out itself."""
    found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return next((core for core, needed in _CORES.items() if needed <= flags), None)


def load_faiss() -> None:
    """Loads faiss, unless it is loaded. The environment is then as it was: other programs have an OpenBLAS of their own."""
    with suppress(OSError):
        if _SETTING not in os.environ and (core := core_of(Path("/proc/cpuinfo").read_text(encoding="utf-8"))):
            os.environ[_SETTING] = core
            try:
                import faiss  # noqa: F401
            finally:
                del os.environ[_SETTING]


load_faiss()
