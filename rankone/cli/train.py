"""`rankone train`, `export` and `evaluate`: from images on disk to a bundle, and its report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import BaseModel, ConfigDict
from tyro.conf import Positional, arg

from rankone.cli import command, show
from rankone.model.bundle import Bundle, open_bundle
from rankone.model.engine import load_engine
from rankone.model.engine.base import Device, EngineName
from rankone.training import measure, pipeline
from rankone.training.data import DataError, load
from rankone.training.export import ExportError, check_exportable
from rankone.training.processes import DeviceChoice, choose_device, is_main_process
from rankone.training.recipe import PoolingRecipe, Recipe, load_recipe
from rankone.training.report import write_report
from rankone.training.run import Run


class MachineOptions(BaseModel):
    """Where the work is done; changes no result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: DeviceChoice = "auto"
    """Where the network trains: auto is the GPU if there is one; a device that is not available is an error."""
    workers: int = 0
    """Processes that load images; 0 loads them in the main one."""


class Checking(BaseModel):
    """What becomes of images that cannot be decoded."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    skip_bad: bool = False
    """Leave out images that cannot be decoded and list them in the report. Otherwise they are named and nothing starts."""


class Keeping(BaseModel):
    """What a training leaves on disk beside its run; changes no result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cache: Path | None = None
    """Folder that keeps the embeddings of phase 1 for other runs. If not given, they are removed after phase 1."""
    tensorboard: bool = False
    """Also write for TensorBoard, into the run; needs rankone[tensorboard]."""


_HERE = MachineOptions()
_NOTHING = Keeping()
_ALL = Checking()


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
        machine: Annotated[MachineOptions, arg(name="")] = _HERE,
        checking: Annotated[Checking, arg(name="")] = _ALL,
        keeping: Annotated[Keeping, arg(name="")] = _NOTHING,
    ) -> None:
        """Fine-tunes a network: phase 1 the classifier alone, phase 2 all layers; then measures it on the test images.

        After Ctrl-C, the same command resumes the run. On several GPUs:
        torchrun --nproc-per-node 4 -m rankone train …

        Args:
            data: photos, cub, aircraft, mit67, dtd or a folder: of one of these, or with train/<class>/ and test/<class>/.
            run: directory of the run.
            recipe: default, demo, cub, aircraft, mit67, dtd or a YAML file; the other flags override its fields.
            fields: the recipe.
            machine: where it runs.
            checking: of the images, before anything is trained.
            keeping: what is kept.
        """
        images = load(data, fields.reader)
        if is_main_process():
            _note_if_not_exportable(fields.pooling)
            show.left_out(images.left_out)
        device = _device(machine.device)
        state = pipeline.train(
            images,
            fields,
            run,
            device=device,
            workers=machine.workers,
            cache=keeping.cache,
            tensorboard=keeping.tensorboard,
            skip_bad=checking.skip_bad,
        )
        if is_main_process():
            show.training(state, run)
            show.report(pipeline.evaluate(run, images, device=device, workers=machine.workers), run)

    tyro.cli(command, prog="rankone train", args=arguments)


@command
def export(
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


@command
def evaluate(
    bundle: Positional[Path],
    data: str,
    out: Path | None = None,
    engine: EngineName = "onnx",
    device: DeviceChoice = "auto",
    threads: int | None = None,
    workers: int = 0,
    reader: dict[str, str] | None = None,
    skip_bad: bool = False,
) -> None:
    """Measures a bundle on the test images of a data set, through the engine that serves it; writes a report.

    Args:
        bundle: directory of the bundle.
        data: `photos`, a benchmark by name, or a folder with train/<class>/ and test/<class>/.
        out: directory of the report; `<bundle>-report` beside the bundle if not given.
        engine: which exported form of the network runs.
        device: the GPU if there is one (auto); a device that is not available is an error.
        threads: CPU threads of the engine; as many as there are cores if not given.
        workers: processes that load images; 0 loads them in this one.
        reader: options of the data set's reader, for instance `--reader partition 3`; on the benchmark that the bundle
            was trained on, those of the training if not given.
        skip_bad: leave out test images that cannot be decoded, and list them in the report.
    """
    chosen = _device(device)
    opened = open_bundle(bundle)
    home = _report_folder(opened, out)
    images = load(data, reader, defaults=measure.reader_options(opened.manifest))
    show.left_out(images.left_out)
    measure.check_classes(opened, images)
    runner = load_engine(opened, engine, chosen, threads or len(os.sched_getaffinity(0)))
    findings = measure.findings_of(opened, images, runner, device=chosen, workers=workers, skip_bad=skip_bad)
    report = write_report(findings, home)
    show.report(report, home)
    sentence, is_warning = measure.compare_with_training(opened.manifest, images.name, report)
    (show.alarm if is_warning else show.step)("against training", sentence)


def _device(asked: DeviceChoice) -> Device:
    """The device to use, which is said."""
    device, reason = choose_device(asked)
    if is_main_process():
        show.step("device", f"{device} ({reason})")
    return device


def _report_folder(bundle: Bundle, out: Path | None) -> Path:
    """Where the report goes: never into the bundle, which refuses files that its manifest does not list."""
    inside = bundle.path.resolve()
    home = inside.with_name(f"{inside.name}-report") if out is None else out
    if home.resolve().is_relative_to(inside):
        raise DataError(f"{home} is within the bundle, which holds nothing but its own files; choose another --out")
    return home


def _note_if_not_exportable(pooling: PoolingRecipe) -> None:
    """Says before hours of training what an export would refuse after them."""
    try:
        check_exportable(pooling)
    except ExportError as error:
        show.step("note", f"this network can be trained and measured, not exported: {error}")
