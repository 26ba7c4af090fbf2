"""`zenvoy explain` and `zenvoy doctor` against a real `zenvoy up`, Envoy and holder."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.e2e.conftest import Start
from tests.e2e.harness import QUICK, quick, request, until
from tests.e2e.test_cli import GOOD, run


def test_explain_shows_the_evidence(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=QUICK)
    assert request(z.http_port, "web").status == 200
    z.wait_state("web", "ScaledToZero")
    found = json.loads(z.cli("explain", "web", "-o", "json").stdout)
    assert found["service"]["state"] == "ScaledToZero"
    events = [move["event"] for move in found["transitions"]]
    # Between them, usage was unknown if the machine stopped for a moment.
    assert (events[:3], events[-2:]) == (["Drained", "IdleElapsed", "Quiet"], ["Ready", "DemandSeen"])
    assert set(events[3:-2]) <= {"TrafficUnknown", "IdleElapsed", "Quiet"}
    (envoy,) = found["envoys"]["each"]
    assert (envoy["id"], envoy["acked"]) == ("local", found["envoys"]["version"]) and envoy["ackedAt"]
    (holder,) = found["holders"]
    assert (holder["mode"], holder["inForce"], holder["held"], holder["released"]) == ("anyip", True, 0, 1)
    (reading,) = found["sample"]["envoys"]
    assert reading["counters"]["requests"] == 1 and found["sample"]["ageSeconds"] < 60
    assert yaml.safe_load(z.cli("explain", "web", "-o", "yaml").stdout)["service"]["name"] == "web"
    printed = z.cli("explain", "web").stdout
    assert printed.startswith("web is ScaledToZero since ")
    for words in (
        "Traffic, by Envoy's admin port (",
        "Route to 127.64.",
        "Connections in holders: 0 held, 0 relayed",
        "applied",
    ):
        assert words in printed, printed
    moves = [line.split()[1:5] for line in printed.splitlines() if " → " in line]
    assert moves[0] == ["Draining", "→", "ScaledToZero", "Drained"] and len(moves) == len(events)
    assert z.cli("explain", "missing").returncode == 4


def test_doctor_of_running_zenvoy_checks_it(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=QUICK)
    z.asleep("web")
    until("a sample is recent", lambda: z.ask("GET", "/v1/overview")["sample"]["unknown"] is None)
    done = z.cli("doctor", str(z.file), "-o", "json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["findings"]) == (0, [])
    assert [one["check"] for one in answer["checks"]] == [
        *("Envoy", "Prometheus", "services file", "zenvoy up", "file in force", "services"),
        *("records", "Envoy's configuration", "listen addresses", "Envoys", "holders", "samples", "busy checks"),
    ]
    assert z.cli("doctor").stdout.splitlines()[-1] == "no problems, no notes"


def test_doctor_before_start_checks_the_machine(zenvoy: Start, tmp_path: Path) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=QUICK)
    taken = tmp_path / "taken.yaml"
    taken.write_text(GOOD.replace("127.0.0.1:10000", f"127.0.0.1:{z.http_port}"))
    done = run("doctor", str(taken), cwd=tmp_path)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{z.http_port}" in done.stdout and "choose another port" in done.stdout
    assert "start it: zenvoy up services.yaml" in done.stdout
    taken.write_text("services: [{name: web, command: [cat], colour: blue}]\n")
    done = run("doctor", str(taken), cwd=tmp_path)
    assert done.returncode == 1 and "colour" in done.stdout and "FileInvalid" in done.stdout


def test_check_ignores_ports_of_up_with_this_file(zenvoy: Start, tmp_path: Path) -> None:
    """Also with another state directory than the default; a copy of the file is another file."""
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=QUICK)
    z.asleep("web")
    assert z.state_dir.name != ".zenvoy"
    own = run("check", str(z.file), cwd=tmp_path)
    assert (own.returncode, own.stderr) == (0, "")
    copy = tmp_path / "copy.yaml"
    copy.write_text(z.file.read_text())
    other = run("check", str(copy), cwd=tmp_path)
    assert other.returncode == 0 and f"cannot listen now: 127.0.0.1:{z.http_port}" in other.stderr


def test_command_during_reconciler_restart_names_up(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=QUICK)
    z.asleep("web")
    (z.state_dir / "control.sock").rename(z.state_dir / "moved.sock")
    done = z.cli("status")
    (z.state_dir / "moved.sock").rename(z.state_dir / "control.sock")
    assert done.returncode == 3
    assert f"`zenvoy up` (process {z.pids()['up']}) runs with the state directory {z.state_dir}" in done.stderr
