"""Lines of the log on their way to a reader that may be slow, stuck or gone.

A write to a terminal stopped by ^S, to a full pipe or to a journal that hangs blocks. The event
loop must never block, so a thread of its own writes, from a bounded queue.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
import weakref
from collections import deque

QUEUE_BYTES = 256 * 1024
"""What may wait for the reader; further lines are lost, and counted."""

PATIENCE = 1.0
"""Seconds that the end of the program, or a fork, waits for a reader that takes nothing."""

FLUSH_TIME = 5.0
"""Seconds that they wait for a slow reader; what it has not taken after that is lost."""


class WriterHandler(logging.Handler):
    """Writes lines to the descriptor `fd`, which stays the caller's. Logging never waits.

    Once a line is lost, no line is taken until the queue is empty; a warning then says how
    many were lost.
    The thread begins with the first line, and ends before a fork: both sides start a new one.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._is_closed = False
        self._begin()
        _living.add(self)

    def _begin(self) -> None:
        """As it is with nothing to write and no thread."""
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._written = 0
        self._writing = False
        self._ending = False
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Put a line into the queue, or count it as lost."""
        try:
            line = self._line(record)
            with self._changed:
                if self._is_closed:
                    return
                if self._lost or (self._lines and self._size + len(line) > QUEUE_BYTES):
                    self._lost += 1
                    return
                self._lines.append(line)
                self._size += len(line)
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="log", daemon=True)
                    thread.start()
                    self._thread = thread
                self._changed.notify_all()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Return when everything is written, or the reader took nothing for PATIENCE seconds.

        What is not written after FLUSH_TIME seconds is counted as lost.
        """
        give_up_at = time.monotonic() + FLUSH_TIME
        with self._changed:
            while self._thread is not None and self._is_busy():

                def has_moved(since: int = self._written) -> bool:
                    return self._written != since or not self._is_busy()

                remaining = give_up_at - time.monotonic()
                if remaining <= 0:
                    self._lose_all()
                    # The line that is being written, and the warning that others are lost.
                    self._changed.wait_for(lambda: not self._is_busy(), PATIENCE)
                    return
                moved = self._changed.wait_for(has_moved, min(PATIENCE, remaining))
                if not moved and remaining > PATIENCE:
                    return

    def stop(self) -> None:
        """Flush and end the thread, unless the reader is stuck; the next line begins another."""
        self.flush()
        with self._changed:
            thread = self._thread
            if thread is None or self._is_busy():
                return
            self._ending = True
            self._changed.notify_all()
        thread.join(PATIENCE)

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._is_closed = True
        super().close()

    def _is_busy(self) -> bool:
        return bool(self._lines or self._lost or self._writing)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _run(self) -> None:
        """What the thread runs."""
        while (line := self._next()) is not None:
            self._write(line)

    def _next(self) -> bytes | None:
        """The next line to write as soon as there is one, None at the end."""
        with self._changed:
            self._writing = False
            self._written += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lines or self._lost or self._ending)
            if self._lines:
                line = self._lines.popleft()
                self._size -= len(line)
            elif self._lost:
                line, self._lost = self._loss(), 0
            else:
                self._ending, self._thread = False, None
                return None
            self._writing = True
            return line

    def _lose_all(self) -> None:
        """Take all lines out of the queue, as lost."""
        self._lost += len(self._lines)
        self._lines.clear()
        self._size = 0

    def _loss(self) -> bytes:
        text = "the reader of the log was too slow: %d lines are lost"
        return self._line(
            logging.LogRecord("tunnel", logging.WARNING, __file__, 0, text, (self._lost,), None)
        )

    def _write(self, line: bytes) -> None:
        # Not by the stream: at the end of the program Python waits for the lock of its buffer.
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # A program that shares the terminal has set it so.
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                return  # a closed terminal costs lines, no more


_living: weakref.WeakSet[WriterHandler] = weakref.WeakSet()


def stop_all() -> None:
    """End the threads of all handlers, once they have written; the next line begins another."""
    for handler in list(_living):
        handler.stop()


def _begin_all() -> None:
    # The thread has stayed behind, maybe with a lock, and with the lines that were stuck.
    for handler in list(_living):
        handler._begin()


os.register_at_fork(before=stop_all, after_in_child=_begin_all)
