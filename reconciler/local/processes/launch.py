"""Start of a program as the leader of its own session.

It inherits no descriptor except its log, and has no terminal: neither Ctrl-C nor the end of zenvoy affects it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from errno import EPERM

from reconciler import environment
from reconciler.local.account import AccountError, account_of
from reconciler.local.open_files import restore_of
from reconciler.local.processes.log_file import LogFile
from reconciler.local.processes.mark import mark, marking
from reconciler.local.processes.pidfd import WatchedProcess
from reconciler.local.processes.program import Program, filled
from reconciler.local.state_dir import CHILD_MARK


class LaunchError(Exception):
    """The command could not be started; the text is the reason, for people."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts programs and the commands of their probes."""

    run: str
    """The id of the state directory."""
    umask: int
    """The umask of the processes; -1: that of this process."""

    def start(self, service: str, program: Program, port: int, output: LogFile) -> WatchedProcess:
        """Start the program on this port. Raises `LaunchError`."""
        try:
            log = output.open()
            try:
                return self.start_command(service, program, program.command, port, log)
            finally:
                os.close(log)
        except (OSError, ValueError) as error:
            raise LaunchError(_reason(error)) from error

    def start_command(
        self, service: str, program: Program, command: Sequence[str], port: int, output: int = subprocess.DEVNULL
    ) -> WatchedProcess:
        """Start a command of the program, such as a probe. Raises OSError and ValueError."""
        inherited = {name: value for name, value in environment.of_programs().items() if name != CHILD_MARK}
        account = account_of(program.user, program.working_directory) if program.user is not None else None
        if account:
            inherited = account.environment(inherited)
        own = {name: filled(value, port) for name, value in program.environment}
        try:
            with marking(mark(self.run, service)):
                child = subprocess.Popen(
                    [filled(part, port) for part in command],
                    cwd=program.working_directory,
                    env={**inherited, "PORT": str(port), **own, "ZENVOY_SERVICE": service},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    umask=self.umask,
                    **(account.credentials() if account else {}),
                )
        except PermissionError as error:
            if account and error.errno == EPERM:  # root in a container can lack capabilities
                raise AccountError(f"zenvoy needs CAP_SETUID and CAP_SETGID to start it as {account.name}") from error
            raise
        restore_of(child.pid)
        return WatchedProcess.of_child(child)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)
