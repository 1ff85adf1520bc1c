"""`rankone reduce`: short embeddings for a bundle that exists."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from rankone.cli import command, show
from rankone.model.bundle import open_bundle
from rankone.model.engine.base import Device


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
