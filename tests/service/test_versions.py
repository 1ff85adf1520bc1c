from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

from rankone.service.versions import first_installed, library_versions


def test_the_first_alternative_that_is_installed_is_named() -> None:
    assert first_installed(("numpy", "pillow")) == ("numpy", version("numpy"))
    assert first_installed(("no-such-build", "pillow")) == ("pillow", version("pillow"))
    with pytest.raises(PackageNotFoundError, match="nor-this"):
        first_installed(("no-such-build", "nor-this"))


def test_the_gpu_builds_are_what_is_installed_here() -> None:
    assert set(library_versions()) == {"rankone", "fastapi", "onnxruntime-gpu", "faiss-gpu", "numpy", "pillow"}
