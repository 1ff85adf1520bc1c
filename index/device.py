"""Whether indexes can be searched on a device. `gpu` cannot say it: importing it needs torch."""

from __future__ import annotations

from rankone.index.errors import DeviceProblem
from rankone.index.spec import SearchDevice


def check_device(device: SearchDevice) -> None:
    """Raises DeviceProblem if indexes cannot be searched on the device; the message says what to do."""
    if device == "cpu":
        return
    try:
        import torch  # which a service on the CPU does without
    except ImportError as error:
        raise DeviceProblem(
            f"device 'cuda' was asked for, and indexes are searched there with torch, which is missing ({error}): install "
            "it, or set RANKONE_DEVICE=cpu"
        ) from error
    if not torch.cuda.is_available():
        raise DeviceProblem(
            "device 'cuda' was asked for, but torch finds no GPU to search indexes on: check that the NVIDIA driver is "
            "visible here (nvidia-smi), or set RANKONE_DEVICE=cpu"
        )
