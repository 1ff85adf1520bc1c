"""What a thread is told: a queue that ends, so that nobody waits for an answer which will not come."""

from __future__ import annotations

import queue
import threading
from typing import Generic, TypeVar

Message = TypeVar("Message")


class Inbox(Generic[Message]):
    """Messages in the order they were put in; whatever was accepted lies before the end."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_open = True

    def put(self, message: Message) -> bool:
        """Whether the message was accepted: not after `close`."""
        with self._lock:
            if self._is_open:
                self._queue.put(message)
            return self._is_open

    def close(self) -> None:
        """Puts the end behind what was accepted."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._queue.put(None)

    def get(self, *, block: bool = True) -> Message | None:
        """The next message, None at the end; raises queue.Empty where there is none and `block` is not set."""
        return self._queue.get(block)

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()
