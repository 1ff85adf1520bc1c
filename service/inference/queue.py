"""A queue that is fair between requests: a single image does not wait behind a request of 64."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from rankone.service.inference.job import Job, Task


class FairQueue(asyncio.Queue[Task]):
    """An unbounded asyncio queue that serves jobs in turn: one image of each job, then a second one of each, and so on.

    Images of one job keep their order.
    """

    _queue: OrderedDict[Job, deque[Task]]

    def discard(self, job: Job) -> list[Task]:
        """Removes all images of a job and returns them."""
        return list(self._queue.pop(job, ()))

    def qsize(self) -> int:
        """Images that wait."""
        return sum(map(len, self._queue.values()))

    # what asyncio.Queue leaves to its subclasses

    def _init(self, maxsize: int) -> None:  # noqa: ARG002
        self._queue = OrderedDict()

    def _put(self, task: Task) -> None:
        self._queue.setdefault(task.job, deque()).append(task)

    def _get(self) -> Task:
        job, tasks = self._queue.popitem(last=False)
        task = tasks.popleft()
        if tasks:
            self._queue[job] = tasks
        return task
