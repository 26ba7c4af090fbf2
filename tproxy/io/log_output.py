"""Log output in a thread of its own, so that a destination that fails or blocks does not block the process.

A terminal can be closed (EIO), the reader of a pipe can end (EPIPE) or stop reading (a write blocks), and a disk can be
full (ENOSPC). `write` neither blocks nor raises in any of these cases. Text that cannot be written is dropped and
counted; the count is logged after the next successful write.
"""

from __future__ import annotations

import atexit
import io
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()

MAX_BYTES = 1024 * 1024
"""Text that waits for a slow reader; more is dropped."""
FLUSH_SECONDS = 0.5
"""The time that the process waits at its end for text to be written."""
RETRY_SECONDS = 1.0
"""Interval between checks of a non-blocking descriptor that accepts nothing."""
TOO_SLOW = "the reader is too slow"


class LogOutput(io.TextIOBase):
    """The output at one file descriptor, as a text stream. `encode` must not raise."""

    def __init__(self, descriptor: int, encode: Callable[[str], bytes]) -> None:
        self._descriptor, self._encode = descriptor, encode
        self._texts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._lost, self._reason = 0, ""
        self._thread: threading.Thread | None = None

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Queue the text, or drop it. Safe in any thread."""
        data = self._encode(text)
        with self._lock:
            if self._waiting_bytes + len(data) > MAX_BYTES:
                self._lost, self._reason = self._lost + 1, TOO_SLOW
                return len(text)
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"output {self._descriptor}", daemon=True)
                self._thread.start()
                atexit.register(self.drain)
        self._texts.put(data)
        return len(text)

    def drain(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until everything is written, for `seconds` at most."""
        deadline = time.monotonic() + seconds
        while self._waiting_bytes and time.monotonic() < deadline:
            time.sleep(0.002)

    def _run(self) -> None:
        # The main thread handles signals. Blocking SIGTTOU also allows a background process to write to a terminal
        # with `tostop`; it would be stopped otherwise.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            data = self._texts.get()
            reason = self._write_all(data)
            with self._lock:
                self._waiting_bytes -= len(data)
                if reason:
                    self._lost, self._reason = self._lost + 1, reason
                    continue
                lost, self._lost = self._lost, 0
            if lost:
                log.warning("log lines were lost", count=lost, reason=self._reason)

    def _write_all(self, data: bytes) -> str | None:
        """Write the data; return the reason if that fails."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [], RETRY_SECONDS)
            except OSError as error:
                return error.strerror or str(error)
        return None


def replace_streams(stdout: LogOutput, stderr: LogOutput) -> None:
    """Write standard output and standard error to these outputs, so that tracebacks do not block either.

    A stream that is already replaced stays.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = stdout
    if sys.stderr is sys.__stderr__:
        sys.stderr = stderr
