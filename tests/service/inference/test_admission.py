"""Which requests are let in."""

from __future__ import annotations

import pytest

from rankone.service.inference.inference import Admission, QueueFull


def test_admission_counts_images_and_says_when_to_come_back() -> None:
    admission = Admission(10, lambda: 2.0)
    with admission.reserve(7, 60):
        with pytest.raises(QueueFull, match="7 images are in work, and 4 more would exceed the limit of 10") as refused:
            admission.reserve(4, 60).__enter__()
        assert refused.value.retry_after_s == 4
        with admission.reserve(3, 60):
            assert admission.num_images == 10
        assert admission.num_images == 7
    with pytest.raises(ZeroDivisionError), admission.reserve(10, 60):
        raise ZeroDivisionError
    assert admission.num_images == 0


def test_what_cannot_be_in_time_is_not_let_in() -> None:
    """Requests take turns: before a single image stands one of each request, before eight of them, eight of each.

    Its own images count, too, and there is to be some time to spare; but where nothing else waits, it is as soon as it can be.
    """
    admission = Admission(100, lambda: 2.0)
    with admission.reserve(64, 60), admission.reserve(2, 60):
        with admission.reserve(1, 1.8):
            pass
        with pytest.raises(QueueFull, match="the answer would take 1.5 s, too long for this request"):
            admission.reserve(1, 1.7).__enter__()
        with pytest.raises(QueueFull, match="take 9.0 s") as refused:
            admission.reserve(8, 4).__enter__()
        assert refused.value.retry_after_s == 6
    with admission.reserve(64, 0.1):
        pass
