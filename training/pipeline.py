"""The steps of the work as `rankone` and the demo run them: data set and recipe -> run -> report -> bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rankone.model.bundle import Bundle, DatasetRecord, TrainingRecord
from rankone.model.network import Network, build_network
from rankone.training.checkpoint import latest
from rankone.training.data import DataSet
from rankone.training.data.images import batches
from rankone.training.embeddings import Work, represented
from rankone.training.encoder import Forward
from rankone.training.evaluate import Report
from rankone.training.evaluate import evaluate as measure
from rankone.training.export import MIN_IMAGES, Description, library_versions, spread
from rankone.training.export import export as write_bundle
from rankone.training.fit import fit
from rankone.training.metrics import Floats
from rankone.training.processes import World, joined, stop_on_signal
from rankone.training.recipe import Recipe
from rankone.training.report import JSON, Facts, Findings, write_report
from rankone.training.report.spectrum import spectrum
from rankone.training.run import Run, RunError
from rankone.training.selection import steering_of
from rankone.training.state import Progress


def train(
    data: DataSet,
    recipe: Recipe,
    path: Path,
    *,
    device: str = "cpu",
    workers: int = 0,
    cache: Path | None = None,
    board: bool = False,
) -> Progress:
    """Trains in the run directory `path`, from where it is to the end of both phases; see `training.fit`.

    Raises:
        RunError: `path` holds another run.
        WeightsError: the weights cannot be had.
        Interrupted: stopped by a signal; the checkpoint is saved.
    """
    check_device(device)
    with joined(device) as world, stop_on_signal() as stop:
        resumed = latest(path) is not None
        network = network_of(recipe, len(data.classes), weights="random" if resumed else recipe.weights)
        if world.leads:
            Run.start(path, recipe, data)  # only now: weights that cannot be had leave nothing behind
        world.wait()
        work = Work(workers=workers, stop=stop, world=world)
        return fit(network, data, Run.open(path), work, cache=cache, board=board)


def evaluate(path: Path, data: DataSet, *, device: str = "cpu", workers: int = 0) -> Report:
    """Measures the network of the run in `path` on the test images, and writes the report into the run."""
    check_device(device)
    run, network, progress = trained(path, data)
    embeddings, logits = outputs(network, run.recipe, data, device=device, workers=workers)
    earlier = network_of(run.recipe, len(data.classes))
    before = measured(earlier, run.recipe, data, device=device, workers=workers) if run.load_phase1(earlier) else None
    findings = Findings(
        data=data,
        embeddings=embeddings,
        logits=logits,
        facts=_facts(run, network, device),
        training=training_record(run, data, progress),
        phase1=None if before is None else before.metrics,
        spectrum=spectrum(network, data.test, run.recipe.preprocessing, device=device),
    )
    return write_report(findings, path)


def measured(network: Network, recipe: Recipe, data: DataSet, *, device: str = "cpu", workers: int = 0) -> Report:
    """The figures of a trained network on the test images."""
    embeddings, logits = outputs(network, recipe, data, device=device, workers=workers)
    return measure(embeddings, logits, np.array(data.test.labels), data.classes)


@torch.no_grad()
def outputs(
    network: Network, recipe: Recipe, data: DataSet, *, device: str = "cpu", workers: int = 0
) -> tuple[Floats, Floats]:
    """Embeddings (n, d) and logits (n, classes) of the test images."""
    assert network.classifier is not None
    forward = Forward(network, torch.device(device))  # in float32, as the bundle will run
    work = Work(workers=workers, world=World(torch.device(device)))
    embeddings, logits = [], []
    for rows in represented(forward, data.test, recipe.preprocessing, work, "testing"):
        embeddings.append(network.embedding_of(rows).cpu().numpy())
        logits.append(network.classifier(rows).cpu().numpy())
    return np.concatenate(embeddings), np.concatenate(logits)


def _facts(run: Run, network: Network, device: str) -> Facts:
    recipe, parts = run.recipe, run.recipe.pooling.composition
    return Facts(
        name=f"{run.data.name}-{recipe.pooling.name}",
        backbone=recipe.backbone,
        weights=recipe.weights,
        pooling=recipe.pooling.name,
        parts=parts.describe(),
        preprocessing=recipe.preprocessing,
        dim=network.pooling.out_dim,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        recipe=recipe.model_dump(mode="json"),
        libraries=library_versions(),
        measured_by=f"torch on {device}",
        trained_on=_dataset_record(run),
    )


def _dataset_record(run: Run) -> DatasetRecord:
    record = run.data
    return DatasetRecord(name=record.name, num_train=record.num_train, num_test=record.num_test, split=record.protocol)


def export(path: Path, data: DataSet, out: Path, *, name: str | None = None, version: str = "1") -> Bundle:
    """Writes the network of the run in `path` as the bundle `out`; its last report, if there is one, gives the metrics.

    Raises:
        ExportError: an exported form does not agree with the network.
        BundleError: `out` exists.
    """
    run, network, progress = trained(path, data)
    report, record = read_report(path), run.data
    description = Description(
        name=name or f"{record.name}-{run.recipe.pooling.name}",
        version=version,
        classes=record.classes,
        metrics=report.metrics if report else {},
        dataset=_dataset_record(run),
        training=training_record(run, data, progress).model_copy(
            update={"phase1_metrics": (report and report.phase1) or {}}
        ),
    )
    return write_bundle(network, run.recipe, _examples(run.recipe, data), out, description)


def read_report(path: Path) -> Report | None:
    """The figures that `evaluate` left in the run in `path`; None where it did not run."""
    report = path / JSON
    return Report.model_validate_json(report.read_bytes()) if report.exists() else None


def export_untrained(recipe: Recipe, data: DataSet, out: Path, *, version: str = "1") -> Bundle:
    """Writes the network that `recipe` starts from as the bundle `out`: it embeds, and knows no classes.

    Args:
        recipe: names backbone, weights, pooling and size.
        data: whose test images every exported form is checked on.
        out: must not exist yet.
        version: of the bundle.

    Raises:
        WeightsError: the weights cannot be had.
        ExportError: an exported form does not agree with the network.
        BundleError: `out` exists.
    """
    network = build_network(
        backbone=recipe.backbone, weights=recipe.weights, pooling=recipe.pooling.composition, seed=recipe.seed
    )
    name = f"{Path(recipe.weights).stem}-{recipe.pooling.name}"
    description = Description(name=name, version=version, classes=None, metrics={}, dataset=None)
    return write_bundle(network, recipe, _examples(recipe, data), out, description)


def _examples(recipe: Recipe, data: DataSet) -> npt.NDArray[np.float32]:
    """Test images of every sort, preprocessed, to hold the exported forms against the network on."""
    chosen = spread(len(data.test), MIN_IMAGES * 2)
    images: npt.NDArray[np.float32] = next(batches(data.test, recipe.preprocessing, [chosen])).numpy()
    return images


def network_of(recipe: Recipe, num_classes: int, weights: str = "random") -> Network:
    """A network as the recipe says, with these weights in its backbone."""
    return build_network(
        backbone=recipe.backbone,
        weights=weights,
        pooling=recipe.pooling.composition,
        num_classes=num_classes,
        classifier_rank=recipe.classifier_rank,
        seed=recipe.seed,
    )


def trained(path: Path, data: DataSet) -> tuple[Run, Network, Progress]:
    """The run in `path`, with its network as chosen so far and how far it is; `data` must be what it was trained on.

    Raises:
        RunError: no run, no checkpoint, or other classes.
    """
    run = Run.open(path)
    if run.data.classes != data.classes:
        raise RunError(f"{path} was trained on the classes of {run.data.name!r}; {data.name!r} has others")
    network = network_of(run.recipe, len(run.data.classes))
    state = run.load(network)
    if state is None:
        raise RunError(f"{path} has no checkpoint yet; train it first")
    network.load_state_dict({**network.state_dict(), **state.tensors.get("best", {})})
    return run, network, state.progress


def training_record(run: Run, data: DataSet, progress: Progress) -> TrainingRecord:
    """How the network of a run came to be, for its bundle and its report."""
    return TrainingRecord(
        steered_by=steering_of(data, run.recipe).words,
        chosen=progress.chosen,
        history=tuple(progress.history),
        returns=tuple(progress.returns),
    )


def check_device(device: str) -> None:
    """Raises RunError if `device` cannot be had; never another one instead."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("device 'cuda' was asked for, but torch finds no GPU (nvidia-smi tells more); use --device cpu")
