"""One process under watch through a pidfd: its end is an event of the loop, and a signal never hits another process.

Works for children and for processes of others alike; only a child's exit status can be known, and is reaped here.
Source: pidfd_open(2), waitid(2). Counterpart: `procfs.py`, which finds them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from select import POLLIN, poll
from subprocess import Popen

from reconciler.local.processes.procfs import Seen, look


class Watched:
    """A process; `exited` is done, with how it ended in words, once it has."""

    def __init__(self, seen: Seen, descriptor: int, child: Popen[bytes] | None) -> None:
        self.seen = seen
        self.exit_code: int | None = None
        """Its exit code once it has exited, if it was a child of ours."""
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._descriptor = descriptor
        self._child = child
        asyncio.get_running_loop().add_reader(descriptor, self._on_exit)

    @classmethod
    def of_child(cls, child: Popen[bytes]) -> Watched:
        """Watch a child that was not waited for yet; it may have ended already. Raises OSError: too many open files."""
        descriptor = os.pidfd_open(child.pid)
        seen = look(child.pid)
        assert seen is not None, "a child stays until it is waited for"
        return cls(seen, descriptor, child)

    @classmethod
    def of_other(cls, seen: Seen) -> Watched | None:
        """Watch a process that somebody else started; None when it is gone."""
        try:
            descriptor = os.pidfd_open(seen.pid)
        except ProcessLookupError:
            return None
        now = look(seen.pid)
        if now is None or now.started_ticks != seen.started_ticks:
            os.close(descriptor)
            return None
        return cls(now, descriptor, None)

    def is_alive(self) -> bool:
        """Whether it runs at this very moment, also when the loop has not heard of its end yet."""
        if self.exited.done():
            return False
        poller = poll()
        poller.register(self._descriptor, POLLIN)
        return not poller.poll(0)

    async def wait(self) -> str:
        """Wait for its end; how it ended, in words."""
        return await asyncio.shield(self.exited)

    def send(self, number: signal.Signals) -> None:
        """Signal it alone; nothing happens when it has ended. Raises PermissionError when it may not be signalled."""
        if not self.exited.done():
            try:
                signal.pidfd_send_signal(self._descriptor, number)
            except ProcessLookupError:
                return

    def send_to_group(self, number: signal.Signals) -> None:
        """Signal its whole process group, at once; it is the group's leader. Raises PermissionError as `send` does."""
        if self.is_alive():
            try:
                os.killpg(self.seen.pid, number)
            except ProcessLookupError:
                return

    def close(self) -> None:
        """Watch it no more."""
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
        child.returncode = -result.si_status
        return f"killed by {_signal_name(result.si_status)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
