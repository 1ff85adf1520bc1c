"""What `rankone doctor` finds, one sentence a finding, and what of the package is installed. Imports nothing of an extra."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Final, Literal

State = Literal["ok", "note", "skipped", "problem"]

PURPOSES: Final = {
    "cpu": "serve bundles on a CPU, and work on indexes",
    "gpu": "serve bundles on an NVIDIA GPU",
    "openvino": "another engine for CPUs, the fastest in bfloat16",
    "service": "the service without ONNX Runtime and faiss, which cpu and gpu add",
    "train": "train, evaluate and export",
    "layers": "the pooling layers in your own PyTorch network",
    "timm": "backbones of timm",
    "heic": "HEIC images",
    "parquet": "Parquet files, written and read",
    "postgres": "indexes in PostgreSQL, which many services share",
    "lance": "published versions of indexes in files or an object store, which services only read",
    "ray": "a cluster: rankone serve --cluster, rankone embed --cluster",
    "tensorboard": "rankone train --tensorboard",
    "traces": "OpenTelemetry traces of the service",
    "dev": "develop rankone itself",
}
"""What each extra is for."""
BUILDS: Final = (("onnxruntime-gpu", "onnxruntime"), ("faiss-gpu", "faiss-cpu"))
"""Packages of which two builds exist; the first runs on CPUs too."""
_SHOWN: Final = (("torch",), *BUILDS, ("numpy",), ("pillow",), ("fastapi",), ("httpx",))
_REQUIREMENT: Final = re.compile(r"""([A-Za-z0-9._-]+)[^;]*;\s*extra\s*==\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `skipped` was not looked at. `mend` says what to do; every `problem` has it."""

    area: str
    name: str
    state: State
    says: str
    mend: str | None = None


@dataclass(frozen=True)
class Extra:
    """An extra of the package; `missing` are the packages of it that are not installed."""

    name: str
    purpose: str
    missing: tuple[str, ...]


def first_installed(alternatives: Sequence[str]) -> tuple[str, str]:
    """Name and version of the first of the packages that is installed.

    Raises:
        PackageNotFoundError: none of them is.
    """
    *preferred, last = alternatives
    for name in preferred:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return last, version(last)


def versions() -> dict[str, str | None]:
    """Versions of Python, of rankone and of what its numbers depend on; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "rankone": version("rankone")}
    for alternatives in _SHOWN:
        try:
            name, number = first_installed(alternatives)
            found[name] = number
        except PackageNotFoundError:
            found[alternatives[-1]] = None
    return found


def extras() -> list[Extra]:
    """Every extra, and what of it is missing. A build for GPUs stands in for the one for CPUs."""
    wanted: dict[str, list[str]] = {name: [] for name in metadata("rankone").get_all("Provides-Extra") or ()}
    for requirement in requires("rankone") or ():
        if found := _REQUIREMENT.match(requirement):
            wanted[found[2]].append(found[1])
    return [
        Extra(name, PURPOSES.get(name, ""), tuple(sorted(package for package in packages if not _is_there(package))))
        for name, packages in wanted.items()
    ]


def _is_there(package: str) -> bool:
    build = next((names for names in BUILDS if package == names[-1]), (package,))
    try:
        first_installed(build)
    except PackageNotFoundError:
        return False
    return True
