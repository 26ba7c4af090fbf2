"""Log output on a thread of its own: a destination that fails or blocks never holds up its process.

A terminal can be closed (EIO), the reader of a pipe can end (EPIPE) or stop reading (a write blocks), and a disk can be
full (ENOSPC). `write` neither blocks nor raises in any of these cases. What cannot be written is dropped and counted,
and the count is reported with the first text that is written again.
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

MOST_BYTES = 1024 * 1024
"""Text that waits for a slow reader; what comes beyond it is dropped."""
FLUSH_SECONDS = 0.5
"""Time that the end of the process allows for text that still waits."""
RETRY_SECONDS = 1.0
"""Pause between two looks at a non-blocking descriptor that takes nothing."""
FULL = "its reader does not keep up"


class LogOutput:
    """The output at one file descriptor.

    `encode` must not raise. `report(count, why)` is called on the output's own thread after texts were lost.
    """

    def __init__(self, descriptor: int, encode: Callable[[str], bytes], report: Callable[[int, str], object]) -> None:
        self._descriptor, self._encode, self._report = descriptor, encode, report
        self._texts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._lost, self._why = 0, ""
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Write the text soon, or drop it. Safe in any thread."""
        data = self._encode(text)
        with self._lock:
            if self._waiting_bytes + len(data) > MOST_BYTES:
                self._lost, self._why = self._lost + 1, FULL
                return
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._start()
        self._texts.put(data)

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until everything is written, for at most `seconds`."""
        deadline = time.monotonic() + seconds
        while self._waiting_bytes and time.monotonic() < deadline:
            time.sleep(0.002)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"output {self._descriptor}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _run(self) -> None:
        # Signals are for the main thread. Blocking SIGTTOU also lets a process in the background write to a terminal
        # whose `tostop` is set; it would be stopped otherwise.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            data = self._texts.get()
            why = self._write_all(data)
            with self._lock:
                self._waiting_bytes -= len(data)
                if why:
                    self._lost, self._why = self._lost + 1, why
                    continue
                lost, self._lost = self._lost, 0
            if lost:
                self._report(lost, self._why)

    def _write_all(self, data: bytes) -> str | None:
        """Return why it was not written."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [], RETRY_SECONDS)
            except OSError as error:
                return error.strerror or str(error)
        return None


class LogStream(io.TextIOBase):
    """A `LogOutput` as a text stream, for `sys.stdout` and `sys.stderr`: tracebacks cannot block the process either."""

    def __init__(self, output: LogOutput) -> None:
        self._output = output

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._output.write(text)
        return len(text)


def replace_streams(stdout: LogOutput, stderr: LogOutput) -> None:
    """Write standard output and standard error of this process through these; one that is redirected already stays."""
    if sys.stdout is sys.__stdout__:
        sys.stdout = LogStream(stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = LogStream(stderr)
