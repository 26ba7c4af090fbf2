"""Starts a program as the leader of a session of its own, with everything it may expect around it.

Rule: it inherits no descriptor but its log, and shares no terminal, so that neither Ctrl-C nor zenvoy's end reaches it.
Counterpart: `ending.py`.
"""

from __future__ import annotations

import os
import subprocess

from reconciler.adapters.processes.output import Output
from reconciler.adapters.processes.pidfd import Watched
from reconciler.adapters.processes.procfs import MARK
from reconciler.adapters.processes.program import Program


class CannotStart(Exception):
    """The command could not be started; the text says why, for people."""


def launch(service: str, program: Program, port: int, run: str, output: Output) -> Watched:
    """Start the program on this port. `run` names the state directory. Raises `CannotStart`."""
    try:
        log = output.open()
        try:
            child = subprocess.Popen(
                program.arguments(port),
                cwd=program.working_directory,
                env={**os.environ, "PORT": str(port), **program.variables(port), **marks(service, run)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
    except (OSError, ValueError) as error:
        raise CannotStart(_said(error)) from error
    try:
        return Watched.of_child(child)
    except OSError as error:
        child.kill()
        child.wait()
        raise CannotStart(_said(error)) from error


def marks(service: str, run: str) -> dict[str, str]:
    """The variables by which every process of a service is told as ours. `run` names the state directory."""
    return {"ZENVOY_SERVICE": service, MARK: f"{run}/{service}"}


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)
