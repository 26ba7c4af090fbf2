"""Waits for a running `zenvoy up` and for its services, over the control socket, which has no notifications."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import quote

import typer

from reconciler.cli import control_client, output
from reconciler.cli.exit_codes import ExitCode
from reconciler.cli.options import READY
from reconciler.local.state_dir import StateDir

POLL_SECONDS = 0.05
AWAKE = ("Active", "Idle")

Find = Callable[[], Sequence[str]]
"""Return what is still missing, as messages for people. Raises `NotRunning`, `RequestRejected`, `InvalidAnswer`."""


def wait(state: StateDir, names: Sequence[str], goal: str, timeout: float) -> None:
    """Wait for services to be in the state `goal`, or to be ready; without names for zenvoy, or for all services."""

    def missing() -> Sequence[str]:
        if not names and goal == READY:
            return unready(state)
        views = [ask_service(state, name) for name in names] if names else _all_services(state)
        wanted = AWAKE if goal == READY else (goal,)
        away = [state_line(view) for view in views if view["state"] not in wanted]
        return [*away, *(unready(state) if goal == READY else ())]

    until(missing, timeout)
    goal = "awake and reachable" if names and goal == READY else goal
    output.echo(f"{', '.join(names) if names else 'zenvoy' if goal == READY else 'every service'} is {goal}")


def until(missing: Find, timeout: float) -> None:
    """Return once nothing is missing; after `timeout` seconds exit with an error that names what is."""
    end = time.monotonic() + timeout
    while True:
        left, code = _look(missing)
        if not left:
            return
        if time.monotonic() >= end:
            output.error(f"not within {timeout:g} s: {'; '.join(left)}")
            raise typer.Exit(code)
        time.sleep(POLL_SECONDS)


def _look(missing: Find) -> tuple[Sequence[str], ExitCode]:
    """Return what is missing, and the exit code if time is up; exit if it can never come."""
    try:
        return missing(), ExitCode.FAILED
    except control_client.NotRunning as error:  # it may be starting
        return [str(error)], ExitCode.NOT_RUNNING
    except control_client.InvalidAnswer as error:
        return [str(error)], ExitCode.FAILED
    except control_client.RequestRejected as error:
        output.error(str(error))
        raise typer.Exit(ExitCode.NO_SUCH_SERVICE) from None


def unready(state: StateDir) -> list[str]:
    """Return why clients are not served yet; empty if they are."""
    reason = control_client.ask(state.control, "GET", "/v1/overview").get("unready")
    return [f"not ready: {reason}"] if reason else []


def until_awake(state: StateDir, service: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Return a woken service once it is awake, or has gone back to sleep; or as it is when time is up."""
    return _follow(state, service, ("Waking",), timeout)


def until_drained(state: StateDir, service: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Return a draining service once it sleeps or stays awake; or as it is when time is up."""
    return _follow(state, service, ("Draining",), timeout)


def _follow(state: StateDir, service: dict[str, Any], passing: Collection[str], timeout: float) -> dict[str, Any]:
    end = time.monotonic() + timeout
    while service["state"] in passing and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        try:
            service = ask_service(state, service["name"])
        except control_client.NotRunning:  # it may be restarting
            continue
    return service


def ask_service(state: StateDir, name: str) -> dict[str, Any]:
    """Return one service. Raises the errors of `control_client.ask`."""
    view: dict[str, Any] = control_client.ask(state.control, "GET", service_path(name))
    return view


def _all_services(state: StateDir) -> list[dict[str, Any]]:
    views: list[dict[str, Any]] = control_client.ask(state.control, "GET", "/v1/services")["services"]
    return views


def service_path(name: str) -> str:
    """Return the path of a service in the control API."""
    return f"/v1/services/{quote(name, safe='')}"


def state_line(service: dict[str, Any]) -> str:
    """Return the line for a service: `web is Waking: a client waits`."""
    return f"{service['name']} is {service['state']}: {service['stalled'] or service['reason']}"
