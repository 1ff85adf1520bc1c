"""A queue that is fair between requests: one of 64 images does not stand before one of a single image."""

from __future__ import annotations

from collections import OrderedDict, deque

from rankone.service.batching.job import Job, Task


class FairQueue:
    """Tasks in turns: the first of every job, then the second of every job, and so on; within a job in their order."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[Job, deque[Task]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def deadline(self) -> float:
        """The earliest of its jobs; there must be one."""
        return min(job.deadline for job in self._jobs)

    def push(self, task: Task) -> None:
        """Adds a task behind those of its own job."""
        self._jobs.setdefault(task.job, deque()).append(task)
        self._length += 1

    def pop(self) -> Task:
        """The next task, whose job then goes to the end of the row.

        Raises:
            IndexError: there is none.
        """
        if not self._jobs:
            raise IndexError("pop from an empty queue")
        job, tasks = self._jobs.popitem(last=False)
        task = tasks.popleft()
        self._length -= 1
        if tasks:
            self._jobs[job] = tasks
        return task

    def discard(self, job: Job) -> list[Task]:
        """Takes all tasks of a job out, and returns them."""
        tasks = self._jobs.pop(job, None) or deque()
        self._length -= len(tasks)
        return list(tasks)
