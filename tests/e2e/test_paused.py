"""Services that are paused while they sleep: clients and commands wake them, nothing else does."""

from __future__ import annotations

from tests.e2e.conftest import Start
from tests.e2e.harness import QUICK, quick, request, until


def test_paused_service_that_starts_asleep_wakes_on_demand(zenvoy: Start) -> None:
    z = zenvoy(
        {"name": "web", "command": quick("http"), "paused": True},
        {"name": "db", "protocol": "tcp", "command": quick("tcp"), "paused": True},
        {"name": "broken", "command": ["false", "{port}"], "paused": True, "holdTimeout": "2s", "wakeTimeout": "1s"},
        {"name": "other", "command": quick("http")},
        defaults=QUICK,
    )
    assert {view["state"] for view in z.statuses().values()} == {"ScaledToZero"}
    pause_end = "until `paused: true` is removed from the services file"
    woken = f"sleeps until a client or `zenvoy wake` wakes it, and then stays awake {pause_end}"
    assert woken in z.cli("explain", "web").stdout
    paused = z.cli("pause", "other")
    assert "wakes it, and then stays awake until `zenvoy resume`" in paused.stdout
    assert z.state("other") == "ScaledToZero", "a pause wakes nothing"
    assert request(z.http_port, "web").status == 200
    assert z.cli("wake", "db").returncode == 0

    def is_refused_with_the_class() -> bool:
        """Return whether the program had exited before `holdTimeout`."""
        refused = request(z.http_port, "broken", headers={"Accept": "application/json"})
        assert refused.status == 503
        return b"Exited" in refused.body

    def is_woken_in_vain_with_the_reason() -> bool:
        """Return whether the program had exited before the command ended."""
        woken_in_vain = z.cli("wake", "broken", "--timeout", "1s")
        assert woken_in_vain.returncode == 1
        return "exited with code 1" in woken_in_vain.stdout + woken_in_vain.stderr

    until("the client gets the class", is_refused_with_the_class)
    until("the user gets the reason", is_woken_in_vain_with_the_reason)
    z.wait_state("web", "Idle")
    z.stays_awake("web", 1.5)
    assert f"stays awake {pause_end}" in z.cli("explain", "web").stdout
    assert z.cli_sleep("web").returncode == 0, "a command is not zenvoy's own decision"
    assert z.status("web")["state"] == "ScaledToZero"
    assert "ScaledToZero (paused)" in z.cli("status", "web").stdout
    assert request(z.http_port, "web").status == 200
