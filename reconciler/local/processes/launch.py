"""Start of a program as the leader of its own session.

It inherits no descriptor except its log, and has no terminal: neither Ctrl-C nor the end of zenvoy affects it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
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


def launch(service: str, program: Program, port: int, run: str, output: LogFile, umask: int) -> WatchedProcess:
    """Start the program on this port. `run` names the state directory. Raises `CannotStart`."""
    try:
        log = output.open()
        try:
            return _start(service, program, program.arguments(port), port, run, log, umask)
        finally:
            os.close(log)
    except (OSError, ValueError) as error:
        raise LaunchError(_reason(error)) from error


def launch_probe(
    service: str, program: Program, command: Sequence[str], port: int, run: str, umask: int
) -> WatchedProcess:
    """Start the command of a probe or a check of a program. Raises OSError and ValueError."""
    words = [filled(part, port) for part in command]
    return _start(service, program, words, port, run, subprocess.DEVNULL, umask)


def _start(
    service: str, program: Program, words: list[str], port: int, run: str, output: int, umask: int
) -> WatchedProcess:
    inherited = {name: value for name, value in environment.of_programs().items() if name != CHILD_MARK}
    account = account_of(program.user, program.working_directory) if program.user is not None else None
    if account:
        inherited = account.environment(inherited)
    try:
        with marking(mark(run, service)):
            child = subprocess.Popen(
                words,
                cwd=program.working_directory,
                env={**inherited, "PORT": str(port), **program.variables(port), "ZENVOY_SERVICE": service},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=umask,
                **(account.credentials() if account else {}),
            )
    except PermissionError as error:
        if account and error.errno == EPERM:  # root in a container can lack capabilities
            raise AccountError(f"zenvoy needs CAP_SETUID and CAP_SETGID to start it as {account.name}") from error
        raise
    restore_of(child.pid)
    try:
        return WatchedProcess.of_child(child)
    except OSError:
        child.kill()
        child.wait()
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)
