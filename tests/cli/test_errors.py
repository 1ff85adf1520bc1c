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
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "rankone: this command needs torch, which"),
        (OSError(errno.ENOSPC, "No space left on device", "a.f32"), 2, "No space left on device: 'a.f32'; mend that"),
    ],
)
def test_what_the_user_can_mend_ends_with_a_sentence(
    error: BaseException, status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with explained() as outcome:
        fail(error)
    assert outcome.status == status
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [OSError(errno.EBADF, "bad descriptor"), ModuleNotFoundError(name="model.bundel"), ZeroDivisionError()]
)
def test_a_fault_of_ours_stays_a_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), explained():
        raise error
