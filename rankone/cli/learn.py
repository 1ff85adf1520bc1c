"""`rankone train` and `export`: from images on disk to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import BaseModel, ConfigDict
from tyro.conf import Positional, arg

from rankone.cli import show
from rankone.training import pipeline
from rankone.training.data import load
from rankone.training.processes import is_main_process
from rankone.training.recipe import Recipe, load_recipe
from rankone.training.run import Run


class Machine(BaseModel):
    """Where the work is done; changes no result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: Literal["cpu", "cuda"] = "cpu"
    """Refused if it cannot be had."""
    workers: int = 0
    """Processes that load images; 0 loads them in this one."""


class Keeping(BaseModel):
    """What a training leaves on disk beside its run; changes no result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cache: Path | None = None
    """Folder for the embeddings of phase 1, kept for other runs; in the run, and removed after phase 1, if not given."""
    tensorboard: bool = False
    """Write for TensorBoard too, into the run; needs rankone[tensorboard]."""


_HERE = Machine()
_NOTHING = Keeping()


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
        keeping: Annotated[Keeping, arg(name="")] = _NOTHING,
    ) -> None:
        """Fine-tunes a network: phase 1 the classifier alone, phase 2 all layers; then measures it on the test images.

        Ctrl-C leaves a checkpoint, and the same command resumes it. Several GPUs:
        torchrun --nproc-per-node 4 -m rankone train …

        Args:
            data: photos, cub, aircraft, mit67, dtd, the folder of one, or one with train/<class>/ and test/<class>/.
            run: directory of the run.
            recipe: default, demo, cub, aircraft, mit67, dtd or a YAML file; the other flags override its fields.
            fields: the recipe.
            machine: where it runs.
            keeping: what is kept.
        """
        if is_main_process():
            show.exportable(fields.pooling)
        images = load(data, fields.reader)
        state = pipeline.train(
            images,
            fields,
            run,
            device=machine.device,
            workers=machine.workers,
            cache=keeping.cache,
            tensorboard=keeping.tensorboard,
        )
        if is_main_process():
            show.training(state, run)
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
            data: what it was trained on.
            bundle: directory to write; must not exist.
            name: name of the bundle; data set and pooling system if not given.
            version: version of the bundle.
        """
        show.bundle(pipeline.export(run, load(data, Run.open(run).recipe.reader), bundle, name=name, version=version))
        show.doubts(pipeline.read_report(run))

    tyro.cli(command, prog="rankone export", args=arguments)
