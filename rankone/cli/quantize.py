"""`rankone quantize`: the backbone in int8 for a bundle that exists."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from rankone.cli import command, show
from rankone.model.bundle import open_bundle


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
