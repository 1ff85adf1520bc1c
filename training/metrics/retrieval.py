"""Retrieval that leaves one out: every image is a query against all the others, by cosine.

With R the number of other images of the query's class and rel(i) whether the i-th nearest is one of them,

    recall@k = any(rel(1..k)),   R-precision = 1/R sum_{i<=R} rel(i),   AP@R = 1/R sum_{i<=R} P(i) rel(i),
    P(i) = 1/i sum_{j<=i} rel(j),

all 0 where R is: such a query has nothing to find, and counts as a miss. Source: Musgrave et al., A Metric Learning Reality
Check, 2020, for R-precision and mAP@R.

Hazard: all n x n scores of 10,000 images take 400 MB, their order twice as much; they are made and ranked in blocks of rows.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from rankone.training.metrics.arrays import Doubles, Floats, Ints

RECALL_AT: Final = (1, 2, 4, 8)
NUM_ROWS: Final = 256
"""Queries a block: 10 MB of scores against 10,000 images."""


def retrieval_scores(embeddings: Floats, labels: Ints, num_rows: int = NUM_ROWS) -> dict[str, Doubles]:
    """Every figure query by query, each (n,) in [0, 1], from embeddings (n, d) of length 1 and labels (n,).

    Equal scores keep the order of the images.
    """
    num_relevant = np.bincount(labels)[labels] - 1
    blocks = []
    for start in range(0, len(labels), num_rows):
        rows = slice(start, start + num_rows)
        relevant = _relevance(embeddings, labels, rows, max(*RECALL_AT, int(num_relevant[rows].max())))
        blocks.append(scores_of(relevant, num_relevant[rows]))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def scores_of(relevant: npt.NDArray[np.bool_], num_relevant: Ints) -> dict[str, Doubles]:
    """The figures of every query, from rel (queries, depth), depth at least the largest R, and R (queries,)."""
    ranks = np.arange(1, relevant.shape[1] + 1)
    counted = relevant & (ranks <= num_relevant[:, None])
    precision = relevant.cumsum(1) / ranks
    divisor = np.maximum(num_relevant, 1)
    recall = {f"recall_at_{k}": relevant[:, :k].any(1).astype(np.float64) for k in RECALL_AT}
    return {
        **recall,
        "r_precision": counted.sum(1) / divisor,
        "map_at_r": (precision * counted).sum(1) / divisor,
    }


def _relevance(embeddings: Floats, labels: Ints, rows: slice, depth: int) -> npt.NDArray[np.bool_]:
    """(queries, at most depth): whether the 1st, 2nd … nearest other image is of the query's class."""
    scores = embeddings[rows] @ embeddings.T
    queries = np.arange(len(labels))[rows]
    scores[np.arange(len(queries)), queries] = -np.inf
    others = len(labels) - 1
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, : min(depth, others)]
    return np.asarray(labels[nearest] == labels[queries][:, None])
