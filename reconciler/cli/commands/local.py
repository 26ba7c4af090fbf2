"""Commands for a running `zenvoy up`, over its control socket.

Modules that only some commands need are imported in functions, so that commands start fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from reconciler.cli import control_client, output
from reconciler.cli.commands.local_wait import AWAKE, service_path, state_line, until_awake, until_drained
from reconciler.cli.exit_codes import ExitCode
from reconciler.cli.options import OutputFormat
from reconciler.core.text import paused_effect
from reconciler.local.state_dir import StateDir

if TYPE_CHECKING:
    from rich.console import Console

WATCH_SECONDS = 0.5


def status(state: StateDir, name: str | None, output_format: OutputFormat, watch: bool) -> None:
    """Show services; with `watch`, until Ctrl-C."""
    try:
        if watch and output_format is OutputFormat.table:
            _watch_table(state, name)
        elif output_format is OutputFormat.table:
            _write_table(*_services_and_complaints(state, name))
        else:
            _write_data(state, name, output_format, watch)
    except KeyboardInterrupt:
        if not watch:
            raise


def wake(state: StateDir, name: str, wait: bool, timeout: float) -> None:
    """Wake a service; with `wait`, exit with `ExitCode.FAILED` if it is not awake in time."""
    service = _post(state, name, "wake")
    if wait:
        service = _checked(lambda: until_awake(state, service, timeout))
    output.echo(state_line(service))
    if wait and service["state"] not in AWAKE:
        raise typer.Exit(ExitCode.FAILED)


def sleep(state: StateDir, name: str, wait: bool, timeout: float) -> None:
    """Put a service to sleep; with `wait`, exit with `ExitCode.FAILED` if it does not sleep in time."""
    service = _post(state, name, "sleep")
    if wait:
        service = _checked(lambda: until_drained(state, service, timeout))
    output.echo(state_line(service))
    if wait and service["state"] != "ScaledToZero":
        raise typer.Exit(ExitCode.FAILED)


def pause(state: StateDir, name: str) -> None:
    """Keep a service awake."""
    service = _post(state, name, "pause")
    output.echo(f"{name} is paused and {paused_effect(service['state'])}")


def resume(state: StateDir, name: str) -> None:
    """Let a service sleep again; exit with `ExitCode.FAILED` if the services file pauses it."""
    service = _post(state, name, "resume")
    if service["paused"]:
        output.echo(f"{name} is paused in the services file; remove `paused: true` there", err=True)
        raise typer.Exit(ExitCode.FAILED)
    output.echo(f"{name} is resumed and may sleep")


def explain(state: StateDir, name: str, output_format: OutputFormat) -> None:
    """Explain a service's state."""
    from reconciler.cli import explanation

    explanation.write(ask(state, "GET", f"{service_path(name)}/explain"), output_format)


def overview(state: StateDir) -> dict[str, Any] | None:
    """Return the live data of the running reconciler; None if none answers."""
    try:
        return _ask(state, "GET", "/v1/overview")
    except control_client.NotRunning:
        return None


def services(state: StateDir) -> list[dict[str, Any]]:
    """Return the services of the running reconciler; none if none answers."""
    try:
        found: list[dict[str, Any]] = _ask(state, "GET", "/v1/services")["services"]
    except control_client.NotRunning:
        return []
    return found


def ask(state: StateDir, method: str, path: str) -> dict[str, Any]:
    """Return the answer of the running reconciler; exit with an error if there is none."""
    return _checked(lambda: _ask(state, method, path))


def _checked(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer of the running reconciler; exit with an error if there is none."""
    try:
        return call()
    except control_client.NotRunning as error:
        output.error(f"{error}; for a cluster, give -n NAMESPACE or --context NAME")
        raise typer.Exit(ExitCode.NOT_RUNNING) from None
    except control_client.RequestRejected as error:
        output.error(str(error))
        raise typer.Exit(ExitCode.NO_SUCH_SERVICE) from None
    except control_client.InvalidAnswer as error:
        output.error(str(error))
        raise typer.Exit(ExitCode.FAILED) from None


def _ask(state: StateDir, method: str, path: str) -> dict[str, Any]:
    """Return the answer; exit with an error if it is invalid."""
    try:
        answer: dict[str, Any] = control_client.ask(state.control, method, path)
    except control_client.InvalidAnswer as error:
        output.error(str(error))
        raise typer.Exit(ExitCode.FAILED) from None
    return answer


def _post(state: StateDir, name: str, command: str) -> dict[str, Any]:
    return ask(state, "POST", f"{service_path(name)}/{command}")


def _get(state: StateDir, name: str | None) -> dict[str, Any]:
    return ask(state, "GET", "/v1/services" if name is None else service_path(name))


def _services_and_complaints(state: StateDir, name: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return services, and the problems that are not about one service."""
    from reconciler.cli import tables

    answer = _get(state, name)
    live = ask(state, "GET", "/v1/overview")
    busy = (live.get("listens") or {}).get("busy", [])
    if name is None:
        found, envoys, holders = answer["services"], answer["envoys"], answer["holders"]
    else:
        found = [answer]
        envoys = [envoy for envoy in live["envoys"] if not envoy.get("away")]
        holders = [holder for holder in live["holders"] if holder["connected"]]
    complaints = [*busy, *tables.complaints(envoys, holders), *tables.file_complaints(live.get("file") or {})]
    if not complaints and live.get("unready"):
        complaints.append(f"not ready: {live['unready']}")
    return found, complaints


def _write_data(state: StateDir, name: str | None, output_format: OutputFormat, watch: bool) -> None:
    output.data(_get(state, name), output_format, of_many=watch)
    while watch:
        time.sleep(WATCH_SECONDS)
        output.data(_get(state, name), output_format, of_many=watch)


def _write_table(services: list[dict[str, Any]], complaints: list[str]) -> None:
    from reconciler.cli import tables

    console = output.console()
    console.print(tables.table(services, width=console.width))
    for complaint in complaints:
        console.print(output.cell(complaint, "red"))


def _watch_table(state: StateDir, name: str | None) -> None:
    """Draw the table again and again; without a terminal, write a line for each change."""
    from reconciler.cli import tables

    console = output.console()
    if console.is_terminal:
        _watch_drawn(state, name, console)
        return
    written: set[str] = set()
    while True:
        services, complaints = _services_and_complaints(state, name)
        lines = [*map(tables.line, services), *complaints]
        for line in lines:
            if line not in written:
                output.echo(line)
        written = set(lines)
        time.sleep(WATCH_SECONDS)


def _watch_drawn(state: StateDir, name: str | None, console: Console) -> None:
    from rich.console import Group
    from rich.live import Live

    from reconciler.cli import tables

    with Live(console=console, auto_refresh=False) as live:
        while True:
            services, complaints = _services_and_complaints(state, name)
            red = (output.cell(complaint, "red") for complaint in complaints)
            live.update(Group(tables.table(services, width=console.width), *red), refresh=True)
            time.sleep(WATCH_SECONDS)
