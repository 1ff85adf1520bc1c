"""sync.py and sync_transport.py are what tests/client/generate.py makes of the asynchronous files."""

from __future__ import annotations

import pytest

from tests.client.generate import CLIENT, generate, sources

CODE = sources()


def test_the_blocking_client_is_generated_from_the_asynchronous_one() -> None:
    generated = generate(CODE)
    for name, text in generated.items():
        assert (CLIENT / name).read_text(encoding="utf-8") == text, "run: python tests/client/generate.py"
    assert "def embed(self, images: Images, dim: int | None = None) -> Embedding:" in generated["sync.py"]
    assert "time.sleep(wait_s)" in generated["sync_transport.py"]


def test_asynchronous_code_that_would_be_left_is_refused() -> None:
    with pytest.raises(ValueError, match=r"still asynchronous: '_lock = asyncio.Lock\(\)'"):
        generate({**CODE, "asynchronous.py": CODE["asynchronous.py"] + "\n_lock = asyncio.Lock()\n"})


def test_a_substitution_that_is_never_used_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing matches .*aclos"):
        generate({name: code.replace("aclos", "clos") for name, code in CODE.items()})
