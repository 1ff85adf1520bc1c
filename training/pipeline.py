"""The steps of the work as `rankone` and the demo run them: data set and recipe -> run -> report -> bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rankone.model.bundle import Bundle
from rankone.model.network import Network, ShortEmbedding
from rankone.model.reduction import ReductionError, ReductionRecord
from rankone.model.training_record import TrainingRecord
from rankone.training import short
from rankone.training.checkpoint import is_trained
from rankone.training.data import DataSet
from rankone.training.embeddings import embed
from rankone.training.encoder import Encoder, centre_bottleneck
from rankone.training.evaluate import REPORT, Report, compute_report
from rankone.training.export import MIN_IMAGES, Description, examples, manifest_of, write_bundle
from rankone.training.fit import fit
from rankone.training.metrics import Floats
from rankone.training.processes import Processes, Resources, check_device, joined_processes, stop_on_signal
from rankone.training.progress import print_line
from rankone.training.recipe import Recipe
from rankone.training.report import Findings, write_report
from rankone.training.run import Run, RunError
from rankone.training.selection import training_images
from rankone.training.state import TrainingState
from rankone.training.usable import usable


def train(
    data: DataSet,
    recipe: Recipe,
    path: Path,
    *,
    device: str = "cpu",
    workers: int = 0,
    cache: Path | None = None,
    tensorboard: bool = False,
    skip_bad: bool = False,
) -> TrainingState:
    """Trains in the run directory `path`, from its checkpoint to the end of both phases; see `training.fit`.

    Every image is decoded first. `skip_bad` leaves out those that cannot be, here and when the run is measured or exported.

    Raises:
        DataError: images that cannot be used, all of them.
        DeviceError: this machine has no such device.
        RunError: `path` holds another run.
        WeightsError: the weights are not available.
        Interrupted: stopped by a signal; the checkpoint is saved.
    """
    check_device(device)
    with joined_processes(device) as processes, stop_on_signal() as stop:
        network = recipe.build_network(len(data.classes), "random" if is_trained(path) else recipe.weights)
        resources = Resources(workers=workers, stop=stop, processes=processes)
        data, skipped = usable(data, recipe.preprocessing, resources, skip_bad=skip_bad)
        if processes.is_main:
            _announce(data, skipped)
            Run.start(path, recipe, data, skipped)  # only now: what fails before leaves nothing behind
        processes.barrier()
        state = fit(network, data, Run.open(path), resources, cache=cache, tensorboard=tensorboard)
        if processes.is_main and not (path / short.SHORT).exists():
            _learn_short(path, data, resources)
        return state


def _learn_short(path: Path, data: DataSet, resources: Resources) -> None:
    """Learns short embeddings of the trained network, and keeps the map in the run; says so where there is nothing to learn."""
    run, network, _ = trained(path, data)
    chosen = short.images_of_run(data, run.recipe)
    try:
        learned = short.learn(short.embedded(network, chosen, run.recipe.preprocessing, resources))
    except ReductionError as error:
        print_line(f"no short embeddings: {error}")
        return
    short.save_learned(learned, path)
    print_line(f"short embeddings of up to {learned.reduction.dim} numbers, learned from {learned.source}")


def evaluate(path: Path, data: DataSet, *, device: str = "cpu", workers: int = 0) -> Report:
    """Measures the network of the run in `path` on the test images, and writes the report into the run."""
    check_device(device)
    run, network, state = trained(path, data)
    data = _without_skipped(run, data)
    recipe = run.recipe
    embeddings, logits = outputs(network, recipe, data, device=device, workers=workers)
    earlier = recipe.build_network(len(data.classes))
    before = measure(earlier, recipe, data, device=device, workers=workers) if run.load_phase1(earlier) else None
    learned = short.load_learned(path)
    description = _description(run, data, state, reduction=None if learned is None else learned.record())
    manifest = manifest_of(network, recipe, description)
    findings = Findings.of(
        network,
        manifest,
        data,
        (embeddings, logits),
        device,
        measured_by=f"torch on {device}",
        phase1=None if before is None else before.metrics,
        short=None if learned is None else short.measure(embeddings, np.array(data.test.labels), learned),
        skipped=run.data.skipped,
    )
    return write_report(findings, path)


def measure(network: Network, recipe: Recipe, data: DataSet, *, device: str = "cpu", workers: int = 0) -> Report:
    """The figures of a trained network on the test images."""
    embeddings, logits = outputs(network, recipe, data, device=device, workers=workers)
    return compute_report(embeddings, logits, np.array(data.test.labels), data.classes)


@torch.no_grad()
def outputs(
    network: Network, recipe: Recipe, data: DataSet, *, device: str = "cpu", workers: int = 0
) -> tuple[Floats, Floats]:
    """Embeddings (n, d) and logits (n, classes) of the test images."""
    assert network.classifier is not None
    encoder = Encoder(network, torch.device(device))  # in float32, as the bundle will run
    resources = Resources(workers=workers, processes=Processes(torch.device(device)))
    embeddings, logits = [], []
    for rows in embed(encoder, data.test, recipe.preprocessing, resources, "testing"):
        embeddings.append(network.embedding_of(rows).cpu().numpy())
        logits.append(network.classifier(rows).cpu().numpy())
    return np.concatenate(embeddings), np.concatenate(logits)


def export(path: Path, data: DataSet, out: Path, *, name: str | None = None, version: str = "1") -> Bundle:
    """Writes the network of the run in `path` as the bundle `out`, with the metrics of its last report, if there is one.

    Raises:
        ExportError: an exported form does not agree with the network.
        BundleError: `out` exists.
    """
    run, network, state = trained(path, data)
    data = _without_skipped(run, data)
    learned, report, reduction = short.load_learned(path), read_report(path), None
    if learned is not None:
        network.short = ShortEmbedding.of(learned.reduction)
        reduction = learned.record(report.short.recommended if report and report.short else None)
    description = _description(run, data, state, name=name, version=version, report=report, reduction=reduction)
    return write_bundle(network, run.recipe, examples(data.test, run.recipe.preprocessing), out, description)


def export_untrained(recipe: Recipe, data: DataSet, out: Path) -> Bundle:
    """Writes the network that `recipe` starts from as the bundle `out`: it embeds, and has no classes.

    Every exported form is checked on the test images of `data`.

    Raises:
        WeightsError: the weights are not available.
        ExportError: an exported form does not agree with the network.
        BundleError: `out` exists.
    """
    name = f"{Path(recipe.weights).stem}-{recipe.pooling.name}"
    description = Description(name=name, version="1", classes=None, metrics={}, dataset=None)
    network = recipe.build_network(None, recipe.weights)
    centre_bottleneck(Encoder(network, torch.device("cpu")), data.train, recipe.preprocessing, Resources())
    return write_bundle(network, recipe, examples(data.test, recipe.preprocessing), out, description)


def read_report(path: Path) -> Report | None:
    """The figures that `evaluate` wrote into the run in `path`; None if it did not run."""
    report = path / REPORT
    return Report.model_validate_json(report.read_bytes()) if report.exists() else None


def trained(path: Path, data: DataSet) -> tuple[Run, Network, TrainingState]:
    """The run in `path` on `data`, its best network so far, and its state; raises RunError without a checkpoint."""
    run = Run.open(path)
    if run.data.classes != data.classes:
        raise RunError(f"{path} was trained on the classes of {run.data.name!r}; {data.name!r} has others")
    network = run.recipe.build_network(len(run.data.classes))
    state = run.load(network)
    if state is None:
        raise RunError(f"{path} has no checkpoint yet; train it first")
    state.load_best(network)
    return run, network, state


def _announce(data: DataSet, skipped: tuple[str, ...]) -> None:
    """Says before hours of training what is left out of them, and what an export would refuse after them."""
    for sentence in skipped:
        print_line(f"skipped: {sentence}")
    if (count := len(data.test)) < MIN_IMAGES:
        print_line(
            f"note: this network can be trained and measured, not exported: an export is checked on at least {MIN_IMAGES} "
            f"test images, and there {'is' if count == 1 else 'are'} {count}"
        )


def _without_skipped(run: Run, data: DataSet) -> DataSet:
    """The data set without the test images that cannot be decoded, if the run was trained without such images."""
    if not run.data.skipped:
        return data
    return usable(data, run.recipe.preprocessing, Resources(), skip_bad=True, splits=("test",))[0]


def _description(
    run: Run,
    data: DataSet,
    state: TrainingState,
    *,
    name: str | None = None,
    version: str = "1",
    report: Report | None = None,
    reduction: ReductionRecord | None = None,
) -> Description:
    """What the run and its report say of its network."""
    training = TrainingRecord(
        steered_by=training_images(data, run.recipe).description,
        chosen=state.chosen,
        history=tuple(state.history),
        rollbacks=tuple(state.rollbacks),
        phase1_metrics=(report and report.phase1) or {},
        phase1_fit=state.phase1_fit,
    )
    return Description(
        name=name or f"{run.data.name}-{run.recipe.pooling.name}",
        version=version,
        classes=run.data.classes,
        metrics=report.metrics if report else {},
        dataset=run.data.for_bundle,
        training=training,
        reduction=reduction,
    )
