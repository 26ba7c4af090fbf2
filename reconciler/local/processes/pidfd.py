"""Watching of a process through a pidfd: its end is an event of the loop, and no signal reaches a later process.

This works for children and for other processes; only children have an exit status, and are reaped here.
Source: pidfd_open(2), waitid(2).
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from select import POLLIN, poll
from subprocess import Popen

from reconciler.local.processes.procfs import ProcessInfo, process_info


class WatchedProcess:
    """A process. When it ends, `exited` has a description of its end."""

    def __init__(self, seen: ProcessInfo, descriptor: int, child: Popen[bytes] | None) -> None:
        self.seen = seen
        self.was_killed = False
        self.exit_code: int | None = None
        """The exit code of a child that has exited."""
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._descriptor = descriptor
        self._child = child
        asyncio.get_running_loop().add_reader(descriptor, self._on_exit)

    @classmethod
    def of_child(cls, child: Popen[bytes]) -> WatchedProcess:
        """Watch a child that was not waited for. Kills it and raises OSError if too many files are open."""
        try:
            seen = process_info(child.pid)
            assert seen is not None, "a child stays until it is waited for"
            return cls(seen, os.pidfd_open(child.pid), child)
        except OSError:
            child.kill()
            child.wait()
            raise

    @classmethod
    def of_other(cls, seen: ProcessInfo) -> WatchedProcess | None:
        """Watch a process that is not a child; return None if it has ended."""
        try:
            descriptor = os.pidfd_open(seen.pid)
        except ProcessLookupError:
            return None
        now = process_info(seen.pid)
        if now is None or now.started_ticks != seen.started_ticks:
            os.close(descriptor)
            return None
        return cls(now, descriptor, None)

    def is_alive(self) -> bool:
        """Return whether it runs now, even if the loop has not processed its end yet."""
        if self.exited.done():
            return False
        poller = poll()
        poller.register(self._descriptor, POLLIN)
        return not poller.poll(0)

    async def wait(self) -> str:
        """Wait for its end; return the description of its end."""
        return await asyncio.shield(self.exited)

    def send(self, number: signal.Signals) -> None:
        """Signal this process only, unless it has ended. Raises PermissionError."""
        if not self.exited.done():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Signal the process group that it leads. Raises PermissionError."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self.seen.pid, number)

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _on_exit(self) -> None:
        how = "exited" if self._child is None else self._reap(self._child)
        self.close()
        if not self.exited.done():
            self.exited.set_result(how)

    def _reap(self, child: Popen[bytes]) -> str:
        result = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
        assert result is not None, "a readable pidfd means that the process has ended"
        if result.si_code == os.CLD_EXITED:
            self.exit_code = child.returncode = result.si_status
            return f"exited with code {result.si_status}"
        child.returncode, self.was_killed = -result.si_status, True
        return f"killed by {_signal_name(result.si_status)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
