"""`rankone bundle init`, `reduce` and `quantize`: bundles that are made without training, anew or of other ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import tyro
from pydantic import TypeAdapter, ValidationError
from tyro.conf import Positional

from rankone.cli import command, show
from rankone.model.bundle import MANIFEST, open_bundle
from rankone.model.engine.base import Device
from rankone.model.errors import RankoneError

_FIRST: Final = "first"
_DEMO: Final = "RANKONE_DEMO"


class DemoUnclear(RankoneError, ValueError):
    """RANKONE_DEMO is neither true nor false."""


def bundle(arguments: list[str]) -> None:
    """See `init`."""
    commands: dict[str, Callable[..., None]] = {"init": init}
    tyro.extras.subcommand_cli_from_dict(commands, prog="rankone bundle", description="Bundles.", args=arguments)


def init(
    folder: Positional[Path],
    recipe: str = "default",
    weights: str | None = None,
    fallback: str | None = None,
    work: Path = Path("runs/init"),
) -> None:
    """Makes a bundle that only embeds, from pretrained weights, nothing trained; leaves a folder alone that holds bundles.

    Args:
        folder: of bundles, for `rankone serve --bundles`; the one that is made is FOLDER/first.
        recipe: names backbone, weights, pooling and size; a recipe that comes with rankone, or a YAML file.
        weights: of the backbone, where they are not to be the recipe's: `imagenet`, `random` or a file.
        fallback: recipe to train on the photographs that come with rankone, if the weights are not available; `demo`
            takes some minutes, and is what RANKONE_DEMO=true chooses. Without one, that is an error.
        work: directory for the photographs, and for the run of the fallback.
    """
    if there := sorted(manifest.parent.name for manifest in folder.glob(f"[!.]*/{MANIFEST}")):
        show.step("bundles", f"{folder} holds {', '.join(there)}; the service verifies what it serves")
        return
    from rankone.model.backbone import WeightsError

    path = folder / _FIRST
    if fallback is None and _demo_is_wanted():
        fallback = "demo"
    try:
        _export(path, recipe, weights, work)
    except WeightsError as error:
        if fallback is None:
            raise WeightsError(
                f"{error} There is no bundle, so nothing is served. For a demo instead, which knows 14 classes of "
                f"photographs and was trained on nothing else, set {_DEMO}=true"
            ) from error
        show.alarm("another bundle", f"{error} Training by the recipe {fallback!r} on the photographs instead.")
        _train(path, fallback, work)


@command
def reduce(
    bundle: Positional[Path],
    data: Positional[str],
    out: Positional[Path],
    unlabelled: bool = False,
    version: str | None = None,
    device: Device = "cpu",
    workers: int = 0,
) -> None:
    """Learns short embeddings for a bundle and writes them, with all else that it holds, as another bundle.

    Its full embeddings stay the same. As its fingerprint is another one, indexes are filled again: `rankone index
    rebuild` does it from the original images.

    Args:
        bundle: directory of the bundle.
        data: `photos`, a benchmark by name, or a folder with train/<class>/ and test/<class>/; best with images that
            did not train the network. The classes need not be those of the bundle.
        out: directory to write; must not exist. A report is written beside it, to OUT-report.
        unlabelled: `data` is any folder of images, whose classes are not known; learns by PCA whitening.
        version: of the new bundle; that of the old one with `-short` if not given.
        device: where the network runs; a device that is not available is an error.
        workers: processes that load images; 0 loads them in this one.
    """
    from rankone.training.data import load
    from rankone.training.reduce import reduce_by_classes, reduce_without_classes
    from rankone.training.report.write import write_short

    opened = open_bundle(bundle)
    if unlabelled:
        reduced = reduce_without_classes(opened, Path(data), out, version=version, device=device, workers=workers)
    else:
        reduced = reduce_by_classes(opened, load(data), out, version=version, device=device, workers=workers)
    show.bundle(reduced.bundle)
    show.short(reduced.report)
    home = out.with_name(f"{out.name}-report")
    write_short(reduced.report, reduced.bundle.manifest, home)
    show.step("report", f"{home}/short.html")


@command
def quantize(
    bundle: Positional[Path],
    data: Positional[str],
    out: Positional[Path],
    version: str | None = None,
    workers: int = 0,
) -> None:
    """Writes a bundle whose backbone can also run in int8, for CPUs that are fast at it; serve it with
    RANKONE_PRECISION=int8.

    It is refused if it loses more than 0.01 of test accuracy, or if fewer than 0.95 of the ten nearest images stay.
    As its fingerprint is another one, indexes are filled again (`rankone index rebuild`).

    Args:
        bundle: directory of the bundle.
        data: `photos`, a benchmark by name, or a folder with train/<class>/ and test/<class>/ and at least 50 test
            images. Ranges are measured on training images, losses on test images.
        out: directory to write; must not exist.
        version: of the new bundle; that of the old one with `-int8` if not given.
        workers: processes that load images; 0 loads them in this one.
    """
    from rankone.training.data import load
    from rankone.training.quantize import quantize

    quantized = quantize(open_bundle(bundle), load(data), out, version=version, workers=workers)
    show.bundle(quantized)
    show.step("serve it", "RANKONE_PRECISION=int8 rankone serve; rankone bench engines measures its speed here")


def _demo_is_wanted() -> bool:
    text = os.environ.get(_DEMO) or "false"
    try:
        return TypeAdapter(bool).validate_python(text)
    except ValidationError as error:
        raise DemoUnclear(f"{_DEMO}={text}: set it to true or false") from error


def _export(path: Path, recipe: str, weights: str | None, work: Path) -> None:
    from rankone.training import pipeline
    from rankone.training.data import load_photos
    from rankone.training.recipe import load_recipe

    chosen = load_recipe(recipe)
    if weights is not None:
        chosen = chosen.model_copy(update={"weights": weights})
    show.step("export", f"{chosen.backbone} ({chosen.weights}) + {chosen.pooling.name}, checked on real photographs")
    show.bundle(pipeline.export_untrained(chosen, load_photos(work), path))


def _train(path: Path, recipe: str, work: Path) -> None:
    from rankone.cli.demo import make
    from rankone.training.recipe import load_recipe

    make(load_recipe(recipe), work, work / "run", path)
