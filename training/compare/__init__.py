"""Poolings and backbones compared on the user's images in minutes, without training.

plan.py       what is compared: images, backbones, poolings
features.py   the local features of a backbone, computed once and kept on disk
measure.py    one pooling: classifier, retrieval, time and bytes
ranking.py    the order, what is as good as the best, and which of it to take
document.py   what is written for a reader
run.py        all of it, row by row; an interrupted comparison resumes
"""

from rankone.training.compare.plan import CompareError, Plan, plan_of
from rankone.training.compare.ranking import By, Ranking
from rankone.training.compare.run import compare

__all__ = ["By", "CompareError", "Plan", "Ranking", "compare", "plan_of"]
