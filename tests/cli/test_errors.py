from __future__ import annotations

import errno

import pytest

from rankone.cli.errors import explained
from rankone.model.errors import Interrupted, RankoneError


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (RankoneError("the reason"), 2, "rankone: the reason"),
        (Interrupted("stopped"), 130, "rankone: stopped"),
        (KeyboardInterrupt(), 130, ""),
        (OSError(errno.ENOSPC, "No space left on device", "a.f32"), 2, "No space left on device: 'a.f32'; solve that"),
    ],
)
def test_what_the_user_can_mend_ends_with_a_sentence(
    error: BaseException, status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with explained("serve") as outcome:
        fail(error)
    assert outcome.status == status
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EBADF, "bad descriptor"), ModuleNotFoundError(name="rankone.model.bundel"), ZeroDivisionError()],
)
def test_a_fault_of_ours_stays_a_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), explained("serve"):
        raise error


@pytest.mark.parametrize(
    ("command", "module", "sentence"),
    [
        ("train", "torch", "`rankone train` needs torch: pip install 'rankone[train]'"),
        ("train", "onnxruntime", "`rankone train` needs onnxruntime: pip install 'rankone[cpu]', or 'rankone[gpu]'"),
        ("serve", "torch", "`rankone serve` needs torch: pip install 'rankone[cpu]', or 'rankone[gpu]'"),
        ("index", "faiss", "`rankone index` needs faiss: pip install 'rankone[cpu]'"),
        ("serve", "PIL.Image", "needs PIL: pip install 'rankone[cpu]'"),
        ("serve", "ray", "`rankone serve` needs Ray for a cluster: pip install 'rankone[ray]' on every machine of it"),
        ("data", "PIL.Image", "needs PIL: pip install 'rankone[train]'"),
        ("bench", "benchmarks.head", "run it from a clone of the repository"),
    ],
)
def test_a_command_says_which_extra_it_lacks(
    command: str, module: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with explained(command) as outcome:
        fail(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert outcome.status == 2
    assert sentence in capsys.readouterr().err
