from __future__ import annotations

import warnings

import pytest

from rankone.model.errors import log_warnings


def test_warnings_become_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():  # which restores what shows them
        warnings.simplefilter("always")
        log_warnings()
        warnings.warn("Truncated File Read\nin two lines", UserWarning, stacklevel=1)
    assert caplog.record_tuples == [("rankone", 30, "UserWarning: Truncated File Read in two lines")]
