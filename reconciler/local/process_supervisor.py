"""The supervisor of the child processes of `zenvoy up`: restarts them when they end or hang, and ends them in order.

Each child is marked in its environment, so that after a SIGKILL the next `up` ends leftovers. Services are not
children: the process backend runs them, and adopts them after a restart. `Health` decides from probes, which `answers`
makes, that a child hangs; `unready` reads for `zenvoy up` whether the reconciler is ready.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from reconciler import environment
from reconciler.concurrency import Backoff
from reconciler.local.open_files import raise_of
from reconciler.local.processes.log_file import LogFile
from reconciler.local.processes.pidfd import WatchedProcess
from reconciler.local.processes.procfs import children_of, cpu_seconds, run_id
from reconciler.local.state_dir import CHILD_MARK, StateDir

log = structlog.get_logger()

BACKOFF = Backoff(0.05, 2.0, jitter=(1.0, 1.0))
"""The first and the longest pause before a restart."""
STABLE_AFTER_SECONDS = 10.0
"""A child that ran this long restarts with the first pause."""
START_PROBE_SECONDS = 0.2
"""Pause between two health probes of a child that has not answered yet."""
LEFTOVER_SECONDS = 5.0
"""Time for the end of a killed process of an earlier run."""
MAX_STARTS = 5
"""After this number of starts without ever being ready, a child is given up."""
PROBE_SECONDS = 1.0
"""Pause between two probes."""
ANSWER_SECONDS = 2.5
"""Timeout of a probe."""
LATE_SECONDS = PROBE_SECONDS + ANSWER_SECONDS + 2.0
"""A longer time between two probes means that the supervisor was stopped, suspended, or short of processor time."""
ANSWER_BYTES = 65_536
"""The longest answer that is read."""
HUNG_SECONDS = 10.0
"""A process that neither answers nor computes for this time is stopped or hung."""
BUSY_SECONDS = 45.0
"""The same for a process that computes: it may be processing a large configuration."""
START_SECONDS = 60.0
"""The same for a process that has not answered yet."""
MIN_FAILURES = 3
BUSY_SHARE = 0.02
"""The share of processor time from which a process counts as computing."""


class Health:
    """The health of one run of one process, by the results of probes. Pure; times are monotonic, in seconds."""

    def __init__(self, started: float, busy_seconds: float = BUSY_SECONDS) -> None:
        self._busy_seconds = busy_seconds
        self._last_probe = started
        self._failures = 0
        self._silent_since, self._cpu_then = started, 0.0
        self.ready = False
        """True once it has answered."""

    def probed(self, answered: bool, now: float, cpu_seconds: float) -> str | None:
        """Record the result of a probe, and the total processor time of the process.

        Returns the reason why the process must be replaced.
        """
        late, self._last_probe = now - self._last_probe > LATE_SECONDS, now
        if answered:
            self.ready = True
        if answered or late:
            self._failures, self._silent_since, self._cpu_then = 0, now, cpu_seconds
            return None
        self._failures += 1
        silence = now - self._silent_since
        if self._failures < MIN_FAILURES or silence < self._bound(silence, cpu_seconds):
            return None
        return f"no answer for {silence:.0f} s"

    def _bound(self, silence: float, cpu_seconds: float) -> float:
        busy = cpu_seconds - self._cpu_then >= BUSY_SHARE * silence
        bound = self._busy_seconds if busy else HUNG_SECONDS
        return bound if self.ready else max(bound, START_SECONDS)


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A child process to keep running, with its output in `StateDir.process_log`."""

    name: str
    command: Sequence[str]
    shares_stdout: bool = False
    """True if only standard error goes to the log file, and standard output to that of the supervisor."""
    health: Path | None = None
    """The Unix socket of its HTTP health endpoint; None: it is ready once it ran long enough."""
    busy_seconds: float = BUSY_SECONDS
    """The longest time that it may compute without answering a probe."""
    stop_seconds: float = 1.0
    """Time between SIGTERM and SIGKILL."""
    descriptors: tuple[int, ...] = ()
    """File descriptors that it inherits."""
    raises_open_files: bool = False
    """True if its soft limit on open files is raised for it."""
    umask: int = -1
    """Its umask; -1: that of the supervisor."""


class ProcessSupervisor:
    """Keeps children running until `close`, in the state directory."""

    def __init__(self, state_dir: StateDir) -> None:
        self._state_dir = state_dir
        self._run_id = run_id(state_dir.path)
        self._running: dict[str, WatchedProcess] = {}
        self._children: list[tuple[ChildProcess, asyncio.Task[None]]] = []
        self._was_ready: set[str] = set()
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """The reason why a child cannot start, once there is one."""

    async def end_leftovers(self) -> None:
        """End the marked processes that an earlier `up` left running."""
        found = children_of(self._run_id)
        left = [(name, process) for name, seen in found if (process := WatchedProcess.of_other(seen))]
        for name, process in left:
            log.info("ending a process of an earlier run", name=name, pid=process.seen.pid)
            process.send(signal.SIGKILL)
        for name, process in left:
            try:
                await asyncio.wait_for(process.wait(), LEFTOVER_SECONDS)
            except TimeoutError:
                log.error("failed to end a process of an earlier run", name=name, pid=process.seen.pid)
                process.close()

    def start(self, child: ChildProcess) -> None:
        """Keep a child running from now on."""
        self._children.append((child, asyncio.create_task(self._keep(child))))

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a child, if it runs. It may end by itself at any moment."""
        if process := self._running.get(name):
            process.send(number)

    async def halt(self) -> None:
        """Stop restarting children."""
        tasks = [task for _, task in self._children]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, name: str) -> None:
        """Send SIGTERM to a child, and wait until it has ended."""
        self.signal(name, signal.SIGTERM)
        if process := self._running.get(name):
            await process.wait()

    async def close(self) -> None:
        """End all children in reverse order, each within its `stop_seconds`."""
        await self.halt()
        for child, _ in reversed(self._children):
            try:
                await asyncio.wait_for(self.stop(child.name), child.stop_seconds)
            except TimeoutError:
                self.signal(child.name, signal.SIGKILL)
                await self._running[child.name].wait()

    async def _keep(self, child: ChildProcess) -> None:
        """Run a child again and again, until cancelled. Give up if it was never ready in `MAX_STARTS` runs."""
        failures = 0
        loop = asyncio.get_running_loop()
        for starts in itertools.count(1):
            began = loop.time()
            output = LogFile(self._state_dir.process_log(child.name))
            try:
                how = await self._run(child, output)
            except OSError as error:
                how = f"cannot be started: {error}"
            if loop.time() - began > STABLE_AFTER_SECONDS:
                failures = 0
                self._was_ready.add(child.name)
            last_lines = output.last_lines()
            if starts >= MAX_STARTS and child.name not in self._was_ready:
                wrote = f"; its last output: {last_lines}" if last_lines else ""
                reason = f"{child.name} ended {MAX_STARTS} times and was never ready: {how}{wrote}; see {output.path}"
                if not self.failed.done():
                    self.failed.set_result(reason)
                return
            pause = BACKOFF.delay(failures)
            said = {"output": last_lines} if last_lines else {}
            log.warning(f"{child.name} ended and is started again", how=how, seconds=round(pause, 2), **said)
            await asyncio.sleep(pause)
            failures += 1

    async def _run(self, child: ChildProcess, output: LogFile) -> str:
        """Run a child once; return how it ended. Raises OSError."""
        descriptor = output.open()
        try:
            started = subprocess.Popen(
                child.command,
                stdin=subprocess.DEVNULL,
                stdout=None if child.shares_stdout else descriptor,
                stderr=descriptor,
                cwd=self._state_dir.path,
                env={**environment.of_components(), CHILD_MARK: f"{self._run_id}/{child.name}"},
                start_new_session=True,
                pass_fds=child.descriptors,
                umask=child.umask,
            )
        finally:
            os.close(descriptor)
        if child.raises_open_files:
            raise_of(started.pid)
        process = self._running[child.name] = WatchedProcess.of_child(started)
        watching = asyncio.create_task(self._watch(child, child.health, process)) if child.health else None
        try:
            how = await process.wait()
            return how if process.exit_code is None else f"exit code {process.exit_code}"
        finally:
            if watching:
                watching.cancel()

    async def _watch(self, child: ChildProcess, at: Path, process: WatchedProcess) -> None:
        """Probe the process, and kill it if it hangs."""
        clock = asyncio.get_running_loop().time
        health = Health(clock(), child.busy_seconds)
        while True:
            await asyncio.sleep(PROBE_SECONDS if health.ready else START_PROBE_SECONDS)
            answered = await answers(at)
            if reason := health.probed(answered, clock(), cpu_seconds(process.seen.pid)):
                log.error(f"{child.name} hangs and is killed", reason=reason)
                process.send(signal.SIGKILL)
                return
            if health.ready:
                self._was_ready.add(child.name)


async def answers(path: Path) -> bool:
    """Return whether a process answers HTTP at a Unix socket in time, with any status."""
    return (await _get(path, "/healthz", 5)).startswith(b"HTTP/")


async def unready(path: Path) -> str | None:
    """Return why a process is not ready, as its `/readyz` at a Unix socket says, or None if it is ready."""
    answer = await _get(path, "/readyz", ANSWER_BYTES)
    if not answer:
        return "it does not answer yet"
    head, _, body = answer.partition(b"\r\n\r\n")
    return None if head.split()[1:2] == [b"200"] else body.decode(errors="replace").strip()


async def _get(path: Path, target: str, max_bytes: int) -> bytes:
    """Return at most `max_bytes` of the answer of a Unix socket; empty if there is none in time.

    It connects through an open directory, since the path may exceed the 107 bytes of a Unix socket's address.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            directory = os.open(path.parent, os.O_PATH)
            try:
                reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{path.name}")
            finally:
                os.close(directory)
            try:
                writer.write(f"GET {target} HTTP/1.1\r\nHost: zenvoy\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while len(answer) < max_bytes and (chunk := await reader.read(max_bytes - len(answer))):
                    answer += chunk
                return answer
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return b""
