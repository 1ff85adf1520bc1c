"""`rankone data`: data sets verified, downloaded and split, before anything is trained on them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import tyro
from rich.table import Table
from tyro.conf import Positional, arg

from rankone.cli import show
from rankone.model.folders import name_of
from rankone.training.data.download import download as fetch
from rankone.training.data.folder import load_folder
from rankone.training.data.split import split as divide
from rankone.training.data.verify import verify_at

_ROOT: Final = Path("data")
_NO_OPTIONS: Final[dict[str, int | str]] = {}
Named = Positional[Annotated[str, arg(metavar="NAME")]]
Folder = Positional[Annotated[Path, arg(metavar="FOLDER")]]
Out = Positional[Annotated[Path, arg(metavar="OUT")]]
Counts = dict[str, tuple[int, int]]


def data(arguments: list[str]) -> None:
    """See `verify`, `download` and `split`."""
    commands: dict[str, Callable[..., None]] = {"verify": verify, "download": download, "split": split}
    description = "Data sets: verified, downloaded and split, before anything is trained on them."
    tyro.extras.subcommand_cli_from_dict(commands, prog="rankone data", description=description, args=arguments)


def verify(
    name: Named,
    path: Positional[Path],
    reader: dict[str, int | str] = _NO_OPTIONS,
    threads: int = 2,
) -> None:
    """Counts classes and images, decodes every file as training does, and names every problem there is.

    Ends with status 0 if there is none, 1 if there are some, 2 if there is nothing to look at.

    Args:
        name: folder (of train/<class>/ and test/<class>/), cub, aircraft, mit67 or dtd.
        path: the folder that it lies in.
        reader: options of its reader, as in a recipe: `--reader partition 3 train train+val`.
        threads: files decoded at once.
    """
    found = verify_at(name, path, reader, threads)
    _print(dict(found.counts))
    show.left_out(found.left_out)
    for problem in found.problems:
        print(problem)
    print(f"{len(found.problems):,} problems" if found.problems else "no problems")
    if found.problems:
        raise SystemExit(1)


def download(name: Named, root: Path = _ROOT) -> None:
    """Downloads a benchmark from its publisher into data/NAME; resumes an interrupted download.

    Args:
        name: cub, aircraft, mit67 or dtd.
        root: folder for data sets by name; training looks for them in ./data.
    """
    fetch(name, root / name)
    _next(f"rankone data verify {name} {_quoted(root / name)}")


def split(folder: Folder, out: Out, test: float = 0.2, seed: int = 0) -> None:
    """Divides a folder of class folders into OUT/train/<class>/ and OUT/test/<class>/.

    By class, at random but the same every time, at least one image on each side; files with the same bytes are kept
    together. Files are linked where that is possible and copied where not; FOLDER is left as it is.

    Args:
        folder: with a folder of images a class.
        out: folder to write; must not exist.
        test: part of every class to test with.
        seed: of the draw.
    """
    division = divide(folder, out, test, seed)
    show.left_out(division.left_out)
    _print({name: (len(part), len(set(part.labels))) for name, part in load_folder(out).splits.items()})
    _next(f"rankone train {_quoted(out)} {_quoted(Path('runs') / out.name)}")


def _print(counts: Counts) -> None:
    table = Table("split", box=None, pad_edge=False)
    for column in ("images", "classes"):
        table.add_column(column, justify="right")
    for name, (num_images, num_classes) in counts.items():
        table.add_row(name, f"{num_images:,}", f"{num_classes:,}")
    show.console.print(table)


def _quoted(path: Path) -> str:
    """For a shell; a name that is no text can only be shown."""
    return shlex.quote(name_of(path))


def _next(command: str) -> None:
    print(f"next: {command}")
