"""Whether the device that indexes are to be searched on can be had."""

from __future__ import annotations

from rankone.index.errors import DeviceProblem
from rankone.index.schema import Device, Spec


def searched_on(spec: Spec, device: Device) -> Device:
    """Where an index is searched in a service on `device`: compact codes lie in the memory of the host."""
    return "cpu" if spec.kind == "compact" else device


def check_device(device: Device) -> None:
    """Raises DeviceProblem where the device cannot be had; the message says what to do."""
    if device == "cpu":
        return
    try:
        import torch  # which a service on the CPU does without
    except ImportError as error:
        raise DeviceProblem(
            f"device 'cuda' was asked for, and indexes are searched there with torch, which is not to be had ({error}): "
            "install it, or set RANKONE_DEVICE=cpu"
        ) from error
    if not torch.cuda.is_available():
        raise DeviceProblem(
            "device 'cuda' was asked for, but torch finds no GPU to search indexes on: check that the NVIDIA driver is "
            "visible here (nvidia-smi), or set RANKONE_DEVICE=cpu"
        )
