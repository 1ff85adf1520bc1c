"""`rankone evaluate`: the report of a bundle on the test images of a data set, measured through the engine that serves it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from tyro.conf import Positional

from rankone.cli import show
from rankone.cli.comparison import comparison
from rankone.model.bundle import Bundle, Manifest, open_bundle
from rankone.model.engine import Engine, load_engine
from rankone.model.network import open_network
from rankone.training.data import DataError, DataSet, load
from rankone.training.data.batches import batches, in_order
from rankone.training.embeddings import BATCH_SIZE
from rankone.training.metrics import Floats
from rankone.training.processes import check_device
from rankone.training.progress import progress
from rankone.training.report import Findings, write_report
from rankone.training.report.spectrum import spectrum


def evaluate(arguments: list[str]) -> None:
    """See `command`."""

    def command(
        bundle: Positional[Path],
        data: str,
        out: Path | None = None,
        engine: Literal["onnx", "torchscript", "export"] = "onnx",
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int | None = None,
        workers: int = 0,
        reader: dict[str, str] | None = None,
    ) -> None:
        """Measures a bundle on the test images of a data set, through the engine that serves it; writes a report.

        Args:
            bundle: directory of the bundle.
            data: `photos`, a benchmark by name, or a folder with train/<class>/ and test/<class>/.
            out: directory of the report; `<bundle>-report` beside the bundle if not given.
            engine: which exported form of the network runs.
            device: where it runs; refused if it cannot be had.
            threads: CPU threads of the engine; as many as there are cores if not given.
            workers: processes that load images; 0 loads them in this one.
            reader: options of the data set's reader, for instance `--reader partition 3`; on the benchmark that the bundle
                was trained on, those of the training if not given.
        """
        check_device(device)
        opened = open_bundle(bundle)
        home = _home(opened, out)
        images = _fitting(opened, load(data, reader, defaults=_options(opened.manifest)))
        runner = load_engine(opened, engine, device, threads or len(os.sched_getaffinity(0)))
        report = write_report(findings_of(opened, images, runner, device=device, workers=workers), home)
        show.report(report, home)
        sentence, alarming = comparison(opened.manifest, images.name, report)
        (show.alarm if alarming else show.step)("against training", sentence)

    tyro.cli(command, prog="rankone evaluate", args=arguments)


def findings_of(bundle: Bundle, data: DataSet, engine: Engine, *, device: str = "cpu", workers: int = 0) -> Findings:
    """What `engine` makes of the test images, and all that the bundle tells of its network."""
    manifest = bundle.manifest
    embeddings, logits = outputs(engine, data, bundle, workers=workers)
    network = open_network(bundle)
    return Findings(
        data=data,
        embeddings=embeddings,
        logits=logits,
        manifest=manifest,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        measured_by=f"{engine.name} on {engine.provider}",
        fingerprint=bundle.fingerprint,
        spectrum=spectrum(network, data.test, manifest.preprocessing, device=device),
    )


def outputs(engine: Engine, data: DataSet, bundle: Bundle, *, workers: int = 0) -> tuple[Floats, Floats | None]:
    """Embeddings (n, dim) of the test images and, where the bundle has classes, logits (n, classes)."""
    groups = in_order(len(data.test), BATCH_SIZE)
    loaded = batches(data.test, bundle.manifest.preprocessing, groups, workers=workers)
    embeddings = np.empty((len(data.test), bundle.manifest.dim), np.float32)
    logits = []
    for group, images in progress(zip(groups, loaded, strict=True), [len(group) for group in groups], "testing"):
        found = engine.run(images.numpy())
        embeddings[group] = found.embedding
        if found.logits is not None:
            logits.append(found.logits)
    return embeddings, np.concatenate(logits) if logits else None


def _options(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """The options that the data set was read with, by its layout: only benchmarks have some, and are called as it is."""
    trained_on = manifest.dataset
    return {} if trained_on is None else {trained_on.name: manifest.recipe.get("reader", {})}


def _home(bundle: Bundle, out: Path | None) -> Path:
    """Never within the bundle, which refuses files that it does not list."""
    inside = bundle.path.resolve()
    home = inside.with_name(f"{inside.name}-report") if out is None else out
    if home.resolve().is_relative_to(inside):
        raise DataError(f"{home} is within the bundle, which holds nothing but its own files; choose another --out")
    return home


def _fitting(bundle: Bundle, data: DataSet) -> DataSet:
    """`data`, if its classes are the bundle's; those of a bundle without classes may be any.

    Raises:
        DataError: they are not; the message says how they differ.
    """
    known = bundle.manifest.classes
    if known is None or known == data.classes:
        return data
    lacking, foreign = sorted(set(known) - set(data.classes)), sorted(set(data.classes) - set(known))
    if not lacking and not foreign:
        raise DataError(f"{data.name} has the classes of the bundle in another order")
    differences = [
        f"{len(names)} {words}, such as {names[0]!r}"
        for names, words in ((foreign, "that the bundle does not know"), (lacking, "of the bundle are missing"))
        if names
    ]
    raise DataError(f"the classes of {data.name} are not those of the bundle: {'; '.join(differences)}")
