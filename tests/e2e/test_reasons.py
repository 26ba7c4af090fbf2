"""Services that cannot wake: `status` and `doctor` name the reason of each, and the other services run."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, View, Zenvoy, quick, request, until
from tests.ports import free_port

ON_IPV6 = "import http.server, socket, sys; http.server.HTTPServer.address_family = socket.AF_INET6; "
SERVE = "http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), http.server.SimpleHTTPRequestHandler).serve_forever()"
REASONS = {
    "ipv6": ("NotReady", "it listens on [::1]:"),
    "elsewhere": ("NotReady", "and not on port"),
    "path": ("NotReady", "GET /missing is answered with 404"),
    "probe": ("NotReady", "no-such-probe cannot be run"),
    "ends": ("Exited", "it must stay in the foreground"),
    "taken": ("NotStarted", "is in use by process"),
    "absent": ("NotStarted", "no-such-program"),
}
"""The code and a part of the reason of each service that cannot wake."""


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Iterator[Zenvoy]:
    python = [sys.executable, "-c"]
    with socket.create_server((LOCAL, 0)) as other:
        yield shared_zenvoy(
            {"name": "fine", "command": quick("http")},
            # They do not take their ports, which a program of another run would take otherwise.
            {"name": "ipv6", "command": [*python, ON_IPV6 + SERVE, "::1", "{port}"], "port": free_port()},
            {
                "name": "elsewhere",
                "command": [*python, f"import http.server, sys; {SERVE}", LOCAL, "0", "{port}"],
                "port": free_port(),
            },
            {
                "name": "path",
                "command": [*python, f"import http.server, sys; {SERVE}", LOCAL, "{port}"],
                "ready": {"http": "/missing"},
            },
            {"name": "probe", "command": quick("http"), "ready": {"command": ["/no-such-probe"]}},
            {"name": "ends", "command": ["true", "{port}"], "wakeTimeout": "1s"},
            {"name": "taken", "command": quick("http"), "port": other.getsockname()[1]},
            {"name": "absent", "command": ["no-such-program", "{port}"]},
            defaults=SLOW_TO_SLEEP,
        )


def findings(z: Zenvoy) -> list[dict[str, Any]]:
    done = z.cli("doctor", "-o", "json")
    assert done.returncode == 1, done
    return list(json.loads(done.stdout)["findings"])


def test_service_that_cannot_wake_has_its_reason(z: Zenvoy) -> None:
    for name in REASONS:
        z.ask("POST", f"/v1/services/{name}/wake")
    assert request(z.http_port, "fine").status == 200

    def has_reason(part: str, view: View) -> bool:
        return part in f"{view['stalled']} {view['reason']}"

    for name, (_, part) in REASONS.items():
        z.wake_until("has its reason", name, partial(has_reason, part))
    found = {one["place"]: one for one in findings(z)}
    for name, (code, part) in REASONS.items():
        finding = found[f"service {name}"]
        assert (finding["reason"], part in finding["message"]) == (code, True), finding


def test_wake_that_ended_without_service_has_failed(z: Zenvoy) -> None:
    z.ask("POST", "/v1/services/ends/wake")
    z.wait_state("ends", "ScaledToZero")
    assert "failed" in z.cli("status", "ends").stdout
    found = next(one for one in findings(z) if one["place"] == "service ends")
    assert (found["code"], found["reason"]) == ("WakeFailed", "Exited")


def test_file_with_missing_programs_runs_in_part(z: Zenvoy) -> None:
    assert "is applied in part" in z.cli("status", "fine").stdout
    found = [one for one in findings(z) if one["code"] == "FileRejected"]
    assert len(found) == 2 and all("no-such" in one["message"] for one in found)
    done = z.cli("check", str(z.file))
    assert (done.returncode, sum("no-such" in line for line in done.stderr.splitlines())) == (2, 2)


def test_rejected_file_is_shown_until_corrected(z: Zenvoy) -> None:
    good = z.file.read_text()
    z.file.write_text(good + "colour: blue\n")
    until("status shows it", lambda: "the services file is rejected" in z.cli("status").stdout)
    assert any(one["code"] == "FileRejected" and "colour" in one["message"] for one in findings(z))
    z.file.write_text(good)
    until("the file is applied again", lambda: not z.ask("GET", "/v1/overview")["file"]["rejected"])
    assert "is rejected" not in z.cli("status").stdout
