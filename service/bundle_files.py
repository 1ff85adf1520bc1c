"""Which bundles the settings name, as they are on disk, and whether the newest can be served."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankone.model.bundle import MANIFEST, Bundle, BundleError, Manifest, open_bundle, read_manifest
from rankone.model.engine import UnusableNetwork
from rankone.model.engine.base import Precision
from rankone.service.engine_choice import open_engine
from rankone.service.settings import Settings


@dataclass(frozen=True)
class Listed:
    """A directory that should be a bundle. `detail` says what is wrong with it, if something is."""

    path: Path
    manifest: Manifest | None = None
    fingerprint: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Checked:
    """What would be served: the bundle, what runs it, why in this precision, and why newer bundles are passed over."""

    bundle: Bundle
    engine: str
    provider: str
    precision: Precision
    why: str
    passed_over: tuple[str, ...]


def list_bundles(settings: Settings) -> list[Listed]:
    """Every bundle that the settings name by its manifest, newest first, then those that are broken.

    Raises:
        BundleError: the folder of bundles cannot be listed.
    """
    paths = [settings.bundle] if settings.bundles is None else sorted(_directories(settings.bundles))
    bundles = [_listed(path) for path in paths]
    return sorted(
        bundles, key=lambda one: one.manifest.created.timestamp() if one.manifest else -math.inf, reverse=True
    )


def check_paths(settings: Settings) -> None:
    """Checks that `bundle` is a bundle and `bundles` a directory of bundles, by their names alone.

    Raises:
        BundleError: nothing is there, or it is named by the wrong one of the two settings.
    """
    folder = settings.bundles
    if folder is None:
        inside = sorted(path.parent.name for path in settings.bundle.glob(f"[!.]*/{MANIFEST}"))
        if inside and not (settings.bundle / MANIFEST).exists():
            raise BundleError(
                f"{settings.bundle} is no bundle, but a directory that holds {', '.join(inside)}: "
                "name it by --bundles (RANKONE_BUNDLES)"
            )
        read_manifest(settings.bundle)
        return
    if (folder / MANIFEST).exists():
        raise BundleError(f"{folder} is a bundle, not a directory of them: name it by --bundle (RANKONE_BUNDLE)")
    if not _directories(folder):
        raise none_usable(settings, [])


def check_newest(settings: Settings) -> Checked:
    """The bundle that would be served, and its engine, which was loaded and closed again.

    Raises:
        BundleError: no bundle can be served.
        EngineError: the engine, the device or the precision is not available.
    """
    reasons: list[str] = []
    for listed in list_bundles(settings):
        try:
            bundle = open_bundle(listed.path)
            engine, why = open_engine(bundle, settings)
        except (BundleError, UnusableNetwork) as error:
            reasons.append(str(error))
            continue
        engine.close()
        return Checked(bundle, engine.name, engine.provider, engine.precision, why, tuple(reasons))
    raise none_usable(settings, reasons)


def none_usable(settings: Settings, reasons: Sequence[str]) -> BundleError:
    """The error to raise where no bundle can be served, for these reasons."""
    return BundleError("; ".join(reasons) or f"{settings.bundles} holds no bundle: `rankone export` writes one")


def _directories(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise BundleError(f"the bundles in {folder} cannot be listed: {error.strerror}") from error


def _listed(path: Path) -> Listed:
    try:
        manifest, fingerprint = read_manifest(path)
    except BundleError as error:
        return Listed(path, detail=str(error))
    return Listed(path, manifest, fingerprint)
