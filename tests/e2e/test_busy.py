"""Services that work without a client: a job that runs on after its response is not cut, and the reason is shown."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import Zenvoy, quick, request, server, until


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    return shared_zenvoy(
        {"name": "jobs", "command": server("jobs"), "busy": {"http": "/busy"}},
        {"name": "files", "command": quick("http"), "busy": {"command": ["test", "-e", "working"]}},
        {"name": "failing", "command": quick("http"), "busy": {"command": ["sh", "-c", "exit 3"]}},
    )


def wait_asked(z: Zenvoy, name: str, reason: str, times: int) -> None:
    """Wait until the service has answered so often with this reason; it is asked once for each idleAfter."""
    seen: set[str] = set()

    def enough() -> bool:
        view = z.status(name)
        if view["busy"] and view["busy"]["reason"] == reason:
            seen.add(view["busy"]["askedAt"])
        return len(seen) >= times

    until(f"{name} answers {reason} {times} times", enough)


def test_job_that_runs_on_after_its_response_is_not_cut(z: Zenvoy) -> None:
    assert request(z.http_port, "jobs", "/jobs/one", method="POST").status == 202
    [pid] = z.service_pids("jobs")
    wait_asked(z, "jobs", "Busy", 3)
    why = "Busy: GET /busy is answered with 200"  # but for a moment, if one answer is late
    z.wait_status("it has the reason", "jobs", lambda view: view["reason"] == why)
    until("explain has the reason", lambda: why in z.cli("explain", "jobs").stdout)
    assert z.service_pids("jobs") == [pid]
    (z.directory / "one.go").touch()
    z.wait_state("jobs", "ScaledToZero")
    assert (z.directory / "one.done").read_text() == str(pid)


def test_sleep_command_does_not_cut_a_job(z: Zenvoy) -> None:
    assert request(z.http_port, "jobs", "/jobs/two", method="POST").status == 202
    [pid] = z.service_pids("jobs")
    z.ask("POST", "/v1/services/jobs/sleep")
    z.wait_status("is kept awake", "jobs", lambda view: view["state"] == "Active" and "Busy" in view["reason"])
    assert z.service_pids("jobs") == [pid]
    (z.directory / "two.go").touch()
    z.wait_state("jobs", "ScaledToZero")
    assert (z.directory / "two.done").exists()


def test_command_keeps_awake_while_it_succeeds(z: Zenvoy) -> None:
    (z.directory / "working").touch()
    assert request(z.http_port, "files").status == 200
    wait_asked(z, "files", "Busy", 2)
    z.wait_status("it has the reason", "files", lambda view: view["reason"] == "Busy: test exits with 0")
    (z.directory / "working").unlink()
    z.wait_state("files", "ScaledToZero")


def test_check_that_always_fails_keeps_awake_and_is_found(z: Zenvoy) -> None:
    assert request(z.http_port, "failing").status == 200
    wait_asked(z, "failing", "BusyCheckFailed", 2)
    done = z.cli("doctor", "-o", "json")
    found = {one["place"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["service failing"]["code"] == "BusyCheckFailed"
    assert "sh exits with 3" in found["service failing"]["message"]
    assert z.status("failing")["state"] != "ScaledToZero"
