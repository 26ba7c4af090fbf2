"""`zenvoy logs`: the output of a service on one machine."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from reconciler.cli import control_client, output
from reconciler.cli.commands.local import ask_service
from reconciler.cli.options import Name, StateDirOption
from reconciler.cli.output import ExitCode
from reconciler.cluster_client.context_options import ContextOptions
from reconciler.local.state_dir import StateDir

POLL_SECONDS = 0.2


def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show new output until Ctrl-C.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", help="Show only this number of last lines.", min=0)] = None,
    state_dir: StateDirOption = None,
) -> None:
    """Show the output of a service's program, on one machine.

    It is kept in the state directory, in logs/NAME.log, also while the service sleeps or zenvoy does not run. In a
    cluster, use `kubectl logs`.

    Examples:

      zenvoy logs web

      zenvoy logs db -f --tail 20
    """
    state = ContextOptions(state_dir=state_dir).state
    path = state.log(name)
    if "/" in name or not (path.exists() or _is_known(state, name)):
        known = sorted(file.stem for file in state.logs.glob("*.log"))
        hint = f"; there are logs of {', '.join(known)}" if known else ""
        output.fail(f"there is no output of {name!r} in {state.logs}{hint}", ExitCode.NO_SUCH_SERVICE)
    try:
        for line in _lines(path, tail, follow):
            _write(line)
    except KeyboardInterrupt:
        if not follow:
            raise


def _is_known(state: StateDir, name: str) -> bool:
    """Return whether a running zenvoy has the service, whose program has not run yet."""
    try:
        return bool(ask_service(state, name))
    except control_client.ControlError:
        return False


def _write(line: bytes) -> None:
    """Write a line: unchanged to a file or a pipe, and without control characters to a terminal."""
    if sys.stdout.isatty():
        output.echo(line.decode(errors="replace").rstrip("\r\n"))
    else:
        typer.echo(line, nl=False)


def _lines(path: Path, tail: int | None, follow: bool) -> Iterator[bytes]:
    """Yield the last lines of a file, and then those that are added to it or to its successor."""
    while follow and not path.exists():
        time.sleep(POLL_SECONDS)  # inotify(7) has a limit per user, which programs may have used up
    if not path.exists():
        return
    file = path.open("rb")
    try:
        yield from file if tail is None else deque(file, maxlen=tail)
        while follow:
            time.sleep(POLL_SECONDS)
            is_replaced = _is_replaced(file, path)
            yield from file
            if is_replaced:
                file.close()
                file = path.open("rb")
    finally:
        file.close()


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    """Return whether the file was rotated or truncated."""
    try:
        there, ours = path.stat(), os.fstat(file.fileno())
    except FileNotFoundError:
        return False
    return there.st_ino != ours.st_ino or there.st_size < file.tell()
