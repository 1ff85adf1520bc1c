"""How full the GPU is, for whoever watches the service."""

from __future__ import annotations


def gpu_memory_bytes() -> int:
    """Memory in use on the GPU, by this process and all others. Every engine on a GPU has torch beside it."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return total - free
