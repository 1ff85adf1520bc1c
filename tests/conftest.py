"""What every test may rely on: a fixed seed, and a small network trained on real photographs once a session."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
