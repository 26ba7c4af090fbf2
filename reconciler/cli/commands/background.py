"""`zenvoy up --wait`: the same command in the background, in a session of its own, until it is ready."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from reconciler.cli import control_client, output
from reconciler.cli.commands.local import unready, until
from reconciler.cli.exit_codes import ExitCode
from reconciler.local.state_dir import StateDir

WAIT_FLAG = "--wait"
LOG = "up.log"
LOG_BYTES_MAX = 10 * 1024 * 1024
SHOWN_BYTES = 16_384


def start(state: StateDir, timeout: float) -> None:
    """Start this command without `--wait`, and return once it is ready.

    Exits with its code if it ends, and with an error after `timeout` seconds; then it continues.
    """
    from reconciler.local import private_files

    state.make()
    log = state.path / LOG
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    with open(private_files.open_file(log), "ab") as written:
        before = written.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "reconciler.cli.main", *(word for word in sys.argv[1:] if word != WAIT_FLAG)],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )

    def missing() -> Sequence[str]:
        if (code := process.poll()) is not None:
            for line in _text_from(log, before).splitlines():
                output.echo(line, err=True)
            raise typer.Exit(code or ExitCode.FAILED)
        if control_client.lock_holder(state.lock) != process.pid:
            return ["it is starting"]
        return unready(state)

    until(missing, timeout)
    output.echo(f"ready; process {process.pid}, log {log}; stop it with: kill {process.pid}")


def _text_from(log: Path, start_byte: int) -> str:
    """Return what was written to the log since, at most its end."""
    with log.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(start_byte, end - SHOWN_BYTES))
        return file.read().decode(errors="replace")
