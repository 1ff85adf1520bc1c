"""sync.py is what tests/client/generate.py makes from asynchronous.py."""

from __future__ import annotations

import pytest

from tests.client.generate import SOURCE, TARGET, generate

CODE = SOURCE.read_text(encoding="utf-8")


def test_the_blocking_client_is_generated_from_the_asynchronous_one() -> None:
    generated = generate(CODE)
    assert TARGET.read_text(encoding="utf-8") == generated, "run: python tests/client/generate.py"
    assert "def embed(self, images: Images, dim: int | None = None) -> Embedding:" in generated


def test_asynchronous_code_that_would_be_left_is_refused() -> None:
    with pytest.raises(ValueError, match=r"still asynchronous: '_lock = asyncio.Lock\(\)'"):
        generate(CODE + "\n_lock = asyncio.Lock()\n")


def test_a_substitution_that_is_never_used_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing matches .*aclos"):
        generate(CODE.replace("aclos", "clos"))
