"""`rankone COMMAND …`: finds the command and imports what it needs, and nothing else."""

from __future__ import annotations

import importlib
import sys
from typing import Final

from rankone import __version__
from rankone.cli.errors import ended, explained, write_anything
from rankone.model.errors import log_warnings

COMMANDS: Final = {
    "train": ("rankone.cli.train", "fine-tune a network on a data set, in two phases"),
    "evaluate": ("rankone.cli.train", "measure a bundle on the test images of a data set"),
    "runs": ("rankone.cli.runs", "compare training runs"),
    "compare": ("rankone.cli.compare", "compare poolings and backbones on your images, without training"),
    "export": ("rankone.cli.train", "write a trained network as a bundle"),
    "reduce": ("rankone.cli.bundle", "learn short embeddings for a bundle"),
    "quantize": ("rankone.cli.bundle", "add the backbone in int8 to a bundle, for faster CPUs"),
    "bundle": ("rankone.cli.bundle", "make a first bundle to serve, without training"),
    "data": ("rankone.cli.data", "verify, download or split a data set"),
    "backbones": ("rankone.cli.backbones", "list backbones and their cost on this machine"),
    "tables": ("rankone.cli.bench", "repeat the paper's tables on any data set"),
    "serve": ("rankone.cli.serve", "serve a bundle over HTTP"),
    "keys": ("rankone.cli.keys", "add, list or revoke the keys of a service"),
    "embed": ("rankone.cli.query", "embed images, by a running service or a bundle"),
    "classify": ("rankone.cli.query", "classify images, by a running service"),
    "add": ("rankone.cli.query", "add images to the index of a running service"),
    "search": ("rankone.cli.query", "find the nearest images in the index of a running service"),
    "explain": ("rankone.cli.explain", "show which parts of an image speak for a class or a match"),
    "update": ("rankone.cli.query", "change the metadata of an item in the index of a running service"),
    "index": ("rankone.cli.index", "verify, export, back up and restore indexes on disk; find duplicates"),
    "doctor": ("rankone.cli.doctor", "check the installation and the settings of a service"),
    "bench": ("rankone.cli.bench", "measure speed, as ratios against named rivals"),
    "demo": ("rankone.cli.demo", "train, serve and search on real photographs"),
}


def main() -> None:
    """The console entry. A fault of the user's ends with one sentence and status 2; a traceback is a fault of ours."""
    write_anything()
    log_warnings()
    try:
        with explained("") as outcome:  # output may fail before a command is found
            outcome.status = _run(sys.argv[1:])
        status = outcome.status
    except SystemExit as exit_:  # of --help, or of a flag that there is not
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        if isinstance(exit_.code, str) and sys.stderr is not None:
            print(exit_.code, file=sys.stderr)
    sys.exit(ended(status))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments == ["--version"]:
        print(f"rankone {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        sys.exit(f"rankone: there is no command {name!r}\n\n{usage()}")
    return run(name, rest)


def run(name: str, arguments: list[str]) -> int:
    """Runs one command with its flags; returns the exit status."""
    with explained(name) as outcome:
        getattr(importlib.import_module(COMMANDS[name][0]), name)(arguments)
    return outcome.status


def usage() -> str:
    """What there is to run."""
    lines = [f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: rankone COMMAND [--help] …", "       rankone --version", "", *lines])


if __name__ == "__main__":
    main()
