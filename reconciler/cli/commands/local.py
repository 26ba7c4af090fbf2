"""Commands for a running `zenvoy up`, over its control socket, which has no notifications."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from reconciler.cli import control_client, output
from reconciler.cli.options import READY, OutputFormat
from reconciler.cli.output import ExitCode
from reconciler.cluster_client.context_options import ContextOptions
from reconciler.core.record import AWAKE_STATES
from reconciler.core.text import paused_effect
from reconciler.local.state_dir import StateDir

if TYPE_CHECKING:
    from rich.console import Group

POLL_SECONDS = 0.05
WATCH_SECONDS = 0.5
PASSING_STATE = {"wake": "Waking", "sleep": "Draining"}
GOALS = {"wake": AWAKE_STATES, "sleep": ("ScaledToZero",)}


def status(state: StateDir, name: str | None, output_format: OutputFormat, watch: bool) -> None:
    """Show services; with `watch`, until Ctrl-C."""
    try:
        if watch and output_format == "table":
            _watch_table(state, name)
        elif output_format == "table":
            console = output.console()
            console.print(_drawn(state, name, console.width))
        else:
            output.data(_get(state, name), output_format, of_many=watch)
            while watch:
                time.sleep(WATCH_SECONDS)
                output.data(_get(state, name), output_format, of_many=True)
    except KeyboardInterrupt:
        if not watch:
            raise


def command(selection: ContextOptions, name: str, verb: str, wait: bool, timeout: float) -> None:
    """Wake a service or put it to sleep; with `wait`, exit with `ExitCode.FAILED` if that does not happen in time."""
    state = selection.state
    service = ask(state, "POST", f"{service_path(name)}/{verb}")
    if wait:
        with _exit_on_error():
            service = _follow(state, service, PASSING_STATE[verb], timeout)
    output.echo(state_line(service))
    if wait and service["state"] not in GOALS[verb]:
        raise typer.Exit(ExitCode.FAILED)


def wait(selection: ContextOptions, names: Sequence[str], goal: str, timeout: float) -> None:
    """Wait for services to be in the state `goal`, or to be ready; without names for zenvoy, or for all services."""
    state = selection.state

    def missing() -> Sequence[str]:
        if not names and goal == READY:
            return unready(state)
        views = [ask_service(state, name) for name in names]
        views = views or control_client.ask(state.control, "GET", "/v1/services")["services"]
        wanted = AWAKE_STATES if goal == READY else (goal,)
        away = [state_line(view) for view in views if view["state"] not in wanted]
        return [*away, *(unready(state) if goal == READY else ())]

    until(missing, timeout)
    goal = "awake and reachable" if names and goal == READY else goal
    output.echo(f"{', '.join(names) if names else 'zenvoy' if goal == READY else 'every service'} is {goal}")


def pause(selection: ContextOptions, name: str, paused: bool) -> None:
    """Keep a service awake, or let it sleep again; exit with `ExitCode.FAILED` if the services file pauses it."""
    service = ask(selection.state, "POST", f"{service_path(name)}/{'pause' if paused else 'resume'}")
    if paused:
        output.echo(f"{name} is paused and {paused_effect(service['state'])}")
    elif service["paused"]:
        output.echo(f"{name} is paused in the services file; remove `paused: true` there", err=True)
        raise typer.Exit(ExitCode.FAILED)
    else:
        output.echo(f"{name} is resumed and may sleep")


def explain(selection: ContextOptions, name: str, output_format: OutputFormat) -> None:
    """Explain a service's state."""
    from reconciler.cli import explanation

    explanation.write(ask(selection.state, "GET", f"{service_path(name)}/explain"), output_format)


def until(missing: Callable[[], Sequence[str]], timeout: float) -> None:
    """Return once nothing is missing; after `timeout` seconds exit with an error that names what is.

    `missing` returns messages for people, and may raise `ControlError`.
    """
    end = time.monotonic() + timeout
    while True:
        code = ExitCode.FAILED
        try:
            left = missing()
        except control_client.RequestRejected as error:
            output.fail(str(error), error.code)
        except control_client.ControlError as error:  # it may be starting
            left, code = [str(error)], error.code
        if not left:
            return
        if time.monotonic() >= end:
            output.fail(f"not within {timeout:g} s: {'; '.join(left)}", code)
        time.sleep(POLL_SECONDS)


def unready(state: StateDir) -> list[str]:
    """Return why clients are not served yet; empty if they are."""
    reason = control_client.ask(state.control, "GET", "/v1/overview").get("unready")
    return [f"not ready: {reason}"] if reason else []


def _follow(state: StateDir, service: dict[str, Any], passing: str, timeout: float) -> dict[str, Any]:
    """Return a service once it has left a state; or as it is when time is up."""
    end = time.monotonic() + timeout
    while service["state"] == passing and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        with suppress(control_client.NotRunning):  # it may be restarting
            service = ask_service(state, service["name"])
    return service


def ask_service(state: StateDir, name: str) -> dict[str, Any]:
    """Return one service. Raises `ControlError`."""
    return control_client.ask(state.control, "GET", service_path(name))


def service_path(name: str) -> str:
    """Return the path of a service in the control API."""
    return f"/v1/services/{quote(name, safe='')}"


def state_line(service: dict[str, Any]) -> str:
    """Return the line for a service: `web is Waking: a client waits`."""
    return f"{service['name']} is {service['state']}: {service['stalled'] or service['reason']}"


def ask(state: StateDir, method: str, path: str) -> dict[str, Any]:
    """Return the answer of the running reconciler; exit with an error if there is none."""
    with _exit_on_error():
        return control_client.ask(state.control, method, path)


def ask_if_running(state: StateDir, path: str) -> dict[str, Any]:
    """Return the answer of the running reconciler; empty if none runs."""
    with _exit_on_error(), suppress(control_client.NotRunning):
        return control_client.ask(state.control, "GET", path)
    return {}


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Exit with the code and the message of an error of the control client."""
    try:
        yield
    except control_client.ControlError as error:
        is_absent = isinstance(error, control_client.NotRunning)
        hint = "; for a cluster, give -n NAMESPACE or --context NAME" if is_absent else ""
        output.fail(f"{error}{hint}", error.code)


def _get(state: StateDir, name: str | None) -> dict[str, Any]:
    return ask(state, "GET", "/v1/services" if name is None else service_path(name))


def _services_and_complaints(state: StateDir, name: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return services, and the problems that are not about one service."""
    from reconciler.cli import tables

    answer = _get(state, name)
    live = ask(state, "GET", "/v1/overview")
    complaints = [*tables.complaints(live)]
    if not complaints and live.get("unready"):
        complaints.append(f"not ready: {live['unready']}")
    return answer["services"] if name is None else [answer], complaints


def _drawn(state: StateDir, name: str | None, width: int) -> Group:
    """Return the table for this width, with the problems that are not about one service below it."""
    from rich.console import Group

    from reconciler.cli import tables

    services, complaints = _services_and_complaints(state, name)
    return Group(tables.table(services, width), *(output.cell(complaint, "red") for complaint in complaints))


def _watch_table(state: StateDir, name: str | None) -> None:
    """Draw the table again and again; without a terminal, write a line for each change."""
    from rich.live import Live

    from reconciler.cli import tables

    console = output.console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_drawn(state, name, console.width), refresh=True)
                time.sleep(WATCH_SECONDS)
    written: set[str] = set()
    while True:
        services, complaints = _services_and_complaints(state, name)
        lines = [*map(tables.line, services), *complaints]
        for line in lines:
            if line not in written:
                output.echo(line)
        written = set(lines)
        time.sleep(WATCH_SECONDS)
