"""Threads that share a search, each with faiss to itself.

faiss's own threads (OpenMP) spin while they wait for each other, which costs several times what they save where other
programs use the processor too, and they divide queries among themselves, of which a search often has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import faiss

ParallelMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""`map`, by several threads: the results come in order, and are made ahead of the one that is asked for."""


@contextmanager
def shared() -> Iterator[ParallelMap]:
    """A `map` by as many threads as faiss may use in this one. Inside this block, faiss uses one thread here too."""
    count = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield map if count == 1 else _workers(count).map
    finally:
        faiss.omp_set_num_threads(count)


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "rankone-search-worker", partial(faiss.omp_set_num_threads, 1))
