"""The pictures of a report, one function each: plain data in, the same picture for light and dark pages out."""

from __future__ import annotations

from training.report.pictures.classes import per_class
from training.report.pictures.confusion import confusion
from training.report.pictures.history import history
from training.report.pictures.quality import calibration, retrieval
from training.report.pictures.values import singular_values

__all__ = ["calibration", "confusion", "history", "per_class", "retrieval", "singular_values"]
