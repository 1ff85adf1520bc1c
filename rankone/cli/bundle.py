"""`rankone bundle init`: a first bundle, so that a service can start where nobody has trained anything yet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import tyro
from pydantic import TypeAdapter, ValidationError
from tyro.conf import Positional

from rankone.cli import show
from rankone.model.bundle import MANIFEST
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
