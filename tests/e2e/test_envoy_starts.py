"""The first seconds of an Envoy: a command to sleep waits for its samples, and no restart is reported falsely."""

from __future__ import annotations

from tests.e2e.conftest import Start
from tests.e2e.harness import SLOW_TO_SLEEP, quick, request, until


def test_sleep_after_the_first_request_succeeds(zenvoy: Start) -> None:
    """The request is in the first sample of an Envoy, and is over when the command comes."""
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=SLOW_TO_SLEEP)
    assert request(z.http_port, "web").status == 200
    z.ask("POST", "/v1/services/web/sleep")
    view = z.wait_state("web", "ScaledToZero", "Active", "Idle")
    assert view["state"] == "ScaledToZero", view


def test_sleep_after_envoy_start_succeeds(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=SLOW_TO_SLEEP)
    assert request(z.http_port, "web").status == 200

    def connected() -> set[str]:
        return {one["since"] for one in z.ask("GET", "/v1/services")["envoys"]}

    old = connected()
    z.kill("envoy")
    until("another Envoy is connected", lambda: connected() - old)
    z.wait_status("Envoy has the route", "web", lambda view: view["route"]["ackedAt"])
    z.ask("POST", "/v1/services/web/sleep")
    view = z.wait_state("web", "ScaledToZero", "Active", "Idle")
    assert view["state"] == "ScaledToZero", view
