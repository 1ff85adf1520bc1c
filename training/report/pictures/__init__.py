"""The pictures of a report, one function each: plain data in, the same picture for light and dark pages out."""

from __future__ import annotations

from rankone.training.report.pictures.classes import per_class
from rankone.training.report.pictures.confusion import confusion
from rankone.training.report.pictures.history import history
from rankone.training.report.pictures.quality import calibration, retrieval
from rankone.training.report.pictures.values import singular_values

__all__ = ["calibration", "confusion", "history", "per_class", "retrieval", "singular_values"]
