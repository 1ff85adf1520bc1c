"""`rankone train` and `export`: from images on disk to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import BaseModel, ConfigDict
from tyro.conf import Positional, arg

from rankone import show
from training import pipeline
from training.datasets import load
from training.recipe import Recipe, load_recipe


class Machine(BaseModel):
    """Where the work is done; changes no result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: Literal["cpu", "cuda"] = "cpu"
    """Refused if it cannot be had."""
    workers: int = 0
    """Processes that load images; 0 loads them in this one."""


_HERE = Machine()


def train(arguments: list[str]) -> None:
    """Parses twice: the recipe that is named gives the defaults of the flags that override it."""

    def named(recipe: str = "default") -> str:
        return recipe

    name, _ = tyro.cli(named, args=arguments, add_help=False, return_unknown_args=True)
    defaults = load_recipe(name)

    def command(
        data: Positional[str],
        run: Positional[Path],
        recipe: str = "default",  # noqa: ARG001 - read above; here so that it is listed
        fields: Annotated[Recipe, arg(name="")] = defaults,
        machine: Annotated[Machine, arg(name="")] = _HERE,
    ) -> None:
        """Fine-tunes a network: phase 1 the classifier alone, phase 2 all layers; then measures it on the test images.

        Ctrl-C leaves a checkpoint, and the same command resumes it.

        Args:
            data: `photos`, or a folder with train/<class>/ and test/<class>/.
            run: directory of the run.
            recipe: `default`, `demo` or a YAML file; the other flags override its fields.
            fields: the recipe.
            machine: where it runs.
        """
        show.exportable(fields.pooling)
        images = load(data)
        progress = pipeline.train(images, fields, run, device=machine.device, workers=machine.workers)
        show.training(progress, run)
        show.report(pipeline.evaluate(run, images, device=machine.device, workers=machine.workers), run)

    tyro.cli(command, prog="rankone train", args=arguments)


def export(arguments: list[str]) -> None:
    """See `command`."""

    def command(
        run: Positional[Path],
        data: Positional[str],
        bundle: Positional[Path],
        name: str | None = None,
        version: str = "1",
    ) -> None:
        """Writes a run's network as a bundle: ONNX, TorchScript and weights, checked against it on test images.

        Args:
            run: directory of the run.
            data: `photos`, or a folder with train/<class>/ and test/<class>/.
            bundle: directory to write; must not exist.
            name: name of the bundle; data set and pooling system if not given.
            version: version of the bundle.
        """
        show.bundle(pipeline.export(run, load(data), bundle, name=name, version=version))

    tyro.cli(command, prog="rankone export", args=arguments)
