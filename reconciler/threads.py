"""Blocking calls in daemon threads, which do not delay the end of the process.

The executors of asyncio join their threads at exit, so that a hanging call to a disk or server would block the exit.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_thread(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run the call in a daemon thread; return its result or error as a future of the running loop."""
    made: Future[T] = Future()
    made.set_running_or_notify_cancel()  # cancelling the wait does not cancel the call

    def run() -> None:
        try:
            made.set_result(call())
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return asyncio.wrap_future(made)
