"""What people type: output, exit codes, and what it does to a running `zenvoy up`."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families

from reconciler.app.up import envoy_binary
from reconciler.cli.main import app
from reconciler.core.diagram import diagram
from reconciler.core.record import State
from tests.e2e.conftest import Start
from tests.e2e.harness import (
    LOCAL,
    QUICK,
    SLOW_TO_SLEEP,
    ZENVOY,
    Zenvoy,
    free_port,
    gated,
    quick,
    request,
    until,
)

PROBES = tuple(f"{LOCAL}:{free_port()}" for _ in range(2))
COMMANDS = sorted(name for name, of in typer.main.get_command(app).commands.items() if not of.hidden)
FIELDS = ["name", "state", "since", "reason", "held", "relayed", "requests", "deadline", "lastWake"]
GOOD = """\
listen: {http: "127.0.0.1:10000"}
services:
  - {name: one, command: [sleep, "{port}"]}
  - {name: two, command: [sleep, "{port}"]}
"""
BAD = """\
listen: {http: "127.0.0.1:10000"}
defaults: {idleAfter: 5 minutes}
services:
  - name: echo
    comand: [sleep, "{port}"]
    command: [no-such-program, "{port}"]
  - name: echo
    protocol: tcp
    listen: "127.0.0.1:10000"
    command: [sleep, "1"]
"""
MISTAKES = [
    "bad.yaml:2:23: defaults.idleAfter: '5 minutes' is not a duration; write it as 5m, 30s or 1h30m",
    "bad.yaml:5:5: services[0].comand: unknown key; did you mean command?",
    "bad.yaml:6:15: services[0].command[0]: 'no-such-program' is not on PATH; ",
    "bad.yaml:7:11: services[1].name: 'echo' is taken by services[0].name (line 4); give it another name",
    "bad.yaml:9:13: services[1].listen: 127.0.0.1:10000 is taken by listen.http (line 1); give it another port",
    'bad.yaml:10:14: services[1].command: its port is never used: put "{port}" where the command or env takes it',
]


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    """One for all tests that do not end it; each has services of its own."""
    drains = {"command": quick("http"), "drainTimeout": "500ms"}
    return shared_zenvoy(
        {"name": "web", "command": quick("http")},
        {"name": "db", "protocol": "tcp", "command": quick("tcp")},
        {"name": "naps", "command": quick("http"), "idleAfter": "500ms"},
        {"name": "busy", **drains},
        {"name": "saved", "command": quick("http"), "drainTimeout": "30s"},
        {"name": "shut", "command": gated(quick("http"), "never")},
        {"name": "fixed", "command": quick("http"), "paused": True},
        defaults=SLOW_TO_SLEEP,
        options=("--metrics", PROBES[0], "--holder-metrics", PROBES[1]),
    )


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`zenvoy` in a folder, as somebody runs it who has set nothing."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ZENVOY_")}
    command, told = [str(ZENVOY), *arguments], {**inherited, **environment}
    return subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, timeout=30, check=False)


# ---- check, and up with mistakes


def test_check_of_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    done = run(tmp_path, "check", "good.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "good.yaml: 2 services, no mistakes\n", "")


def test_check_shows_every_mistake_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    done = run(tmp_path, "check", "bad.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    *lines, last = done.stderr.splitlines()
    assert [line[: len(mistake)] for line, mistake in zip(lines, MISTAKES, strict=True)] == MISTAKES
    assert last == "bad.yaml: 6 mistakes"


def test_up_starts_nothing_when_there_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    done = run(tmp_path, "up", "bad.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == run(tmp_path, "check", "bad.yaml").stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"], "not even a state directory"


@pytest.mark.parametrize("command", ["check", "up"])
def test_file_that_is_not_there(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, "none.yaml")
    assert done.returncode == 2
    assert done.stderr == "none.yaml: it cannot be read: No such file or directory\nnone.yaml: 1 mistake\n"


@pytest.mark.parametrize(
    ("option", "address"),
    [("--metrics", "18080"), ("--holder-metrics", "127.0.0.1:70000"), ("--grpc", "nowhere:1"), ("--grpc", "::1:1")],
)
def test_up_with_an_address_that_is_none(tmp_path: Path, option: str, address: str) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    done = run(tmp_path, "up", "good.yaml", option, address)
    assert done.returncode == 2
    assert address in done.stderr and option in done.stderr and "127.0.0.1:18080" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["good.yaml"]


# ---- status


def test_status_of_one(z: Zenvoy) -> None:
    assert request(z.http_port, "web").body == b"web /\n"
    z.woken("web")
    view = json.loads(z.cli("status", "web", "-o", "json").stdout)
    assert set(FIELDS) <= set(view)
    assert (view["name"], view["held"], view["relayed"]) == ("web", 0, 0)
    assert view["state"] in ("Active", "Idle")
    assert list(view["lastWake"]["parts"]) == ["signal", "started", "reachable", "firstByte"]
    assert view["lastWake"]["total"] == pytest.approx(sum(view["lastWake"]["parts"].values()), abs=1e-5)
    assert list(yaml.safe_load(z.cli("status", "web", "-o", "yaml").stdout)) == list(view)
    z.wait_status("Envoy's count of it is known", "web", lambda view: view["requests"] == 1)
    view = z.wait_state("web", "Idle")
    assert view["deadline"]["event"] == "IdleElapsed"
    head, row = z.cli("status", "web").stdout.splitlines()
    titles = ["NAME", "STATE", "SINCE", "WHY", "HELD", "RELAYED", "REQUESTS", "NEXT", "LAST WAKE"]
    assert re.split(r"  +", head.strip()) == titles
    assert re.match(r"web +Idle +[\d.]+ m?s +no traffic +0 +0 +1 +sleeps in (9m\d+s|10m0s) +[\d.]+ m?s \(signal ", row)


def test_status_of_all(z: Zenvoy) -> None:
    names = sorted(service["name"] for service in z.config["services"])
    for form, parse in (("json", json.loads), ("yaml", yaml.safe_load)):
        told = parse(z.cli("status", "-o", form).stdout)
        assert [service["name"] for service in told["services"]] == names
        assert all(set(FIELDS) <= set(service) for service in told["services"])
    done = z.cli("status")
    assert (done.returncode, done.stderr) == (0, "")
    _, *rows = done.stdout.splitlines()
    assert [row.split()[0] for row in rows] == names


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_watch_in_a_form_for_machines_ends_by_ctrl_c(z: Zenvoy, form: str) -> None:
    with watching(z, "web", "-o", form, stdout=subprocess.PIPE) as watch:
        assert watch.stdout
        wait = "name:" if form == "yaml" else '"name":'
        seen = b""
        while seen.count(wait.encode()) < 2:
            seen += os.read(watch.stdout.fileno(), 65_536)
        watch.send_signal(signal.SIGINT)
        rest, error = watch.communicate(timeout=10)
        assert (watch.returncode, error) == (0, b"")
    text = (seen + rest).decode()
    views = list(yaml.safe_load_all(text)) if form == "yaml" else list(each_json(text))
    assert len(views) >= 2
    assert {view["name"] for view in views} == {"web"}


def test_watch_on_a_terminal_ends_by_ctrl_c(z: Zenvoy) -> None:
    ours, theirs = pty.openpty()
    try:
        with watching(z, stdout=theirs) as watch:
            seen = b""
            while seen.count(b"LAST WAKE") < 2:
                seen += os.read(ours, 65_536)
            watch.send_signal(signal.SIGINT)
            assert watch.wait(10) == 0
            assert watch.stderr and watch.stderr.read() == b""
    finally:
        os.close(ours)
        os.close(theirs)


@contextmanager
def watching(z: Zenvoy, *arguments: str, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "ZENVOY_STATE_DIR": str(z.state_dir), "TERM": "xterm", "COLUMNS": "200"}
    command = [str(ZENVOY), "status", "--watch", *arguments]
    with subprocess.Popen(command, env=environment, stdout=stdout, stderr=subprocess.PIPE) as watch:
        try:
            yield watch
        finally:
            watch.kill()


def each_json(text: str) -> Iterator[Any]:
    while text := text.lstrip():
        found, end = json.JSONDecoder().raw_decode(text)
        yield found
        text = text[end:]


# ---- wake, sleep, pause, resume


def test_wake_and_sleep(z: Zenvoy) -> None:
    z.asleep("db")
    assert z.cli("sleep", "db").returncode == 0, "it sleeps already"
    done = z.cli("wake", "db")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"db is (Waking|Active|Idle): .+\n", done.stdout)
    z.wait_state("db", "Active", "Idle")
    pids = z.service_pids("db")
    assert z.cli("wake", "db").returncode == 0
    assert z.service_pids("db") == pids, "it was awake already"
    done = z.cli("sleep", "db")
    assert (done.returncode, done.stdout) == (0, "db is ScaledToZero: a person asked for it\n")
    until("it has ended", lambda: not z.service_pids("db"))
    assert z.states("db") == [*z.states("db")[:-2], "Draining", "ScaledToZero"], "it was drained first"


def test_sleep_of_what_is_in_use_keeps_it_awake(z: Zenvoy, tmp_path: Path) -> None:
    with under_way(z, "busy", tmp_path / "gate") as asked:
        pids = z.service_pids("busy")
        done = z.cli("sleep", "busy")
        assert done.returncode == 1
        assert re.fullmatch(r"busy is Active: .*1 (requests )?in flight.*\n", done.stdout)
        assert not asked.done()
    assert asked.result().status == 200
    assert z.service_pids("busy") == pids
    assert z.cli("sleep", "busy").returncode == 0


def test_sleep_without_waiting_and_pause_instead(z: Zenvoy, tmp_path: Path) -> None:
    with under_way(z, "saved", tmp_path / "gate") as asked:
        done = z.cli("sleep", "saved", "--no-wait")
        assert (done.returncode, done.stdout) == (0, "saved is Draining: a person asked for it\n")
        assert z.cli("pause", "saved").returncode == 0
        assert z.state("saved") == "Active"
    assert asked.result().status == 200
    assert z.cli("resume", "saved").returncode == 0


@contextmanager
def under_way(z: Zenvoy, name: str, gate: Path) -> Iterator[Any]:
    """A request that its service answers once this is left."""
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(request, z.http_port, name, f"/until{gate}")
        try:
            until("the service has it", lambda: f"asked /until{gate}" in z.output(name))
            yield asked
        finally:
            gate.touch()


def test_sleep_of_what_is_waking(z: Zenvoy) -> None:
    """It is not cut short: somebody may wait."""
    assert z.cli("wake", "shut").stdout == "shut is Waking: a person asked for it\n"
    done = z.cli("sleep", "shut")
    assert (done.returncode, done.stdout) == (1, "shut is Waking: a person asked for it\n")


def test_pause_keeps_awake_until_resume(z: Zenvoy) -> None:
    done = z.cli("pause", "naps")
    assert (done.returncode, done.stdout) == (0, "naps is paused: it is not put to sleep\n")
    z.asleep("naps")
    assert request(z.http_port, "naps").body == b"naps /\n", "it still wakes"
    z.wait_state("naps", "Idle")
    z.stays_awake("naps", 1.5)
    assert z.status("naps")["deadline"] is None
    assert re.search(r"^naps +Idle \(paused\) ", z.cli("status").stdout, re.MULTILINE)
    done = z.cli("resume", "naps")
    assert (done.returncode, done.stdout) == (0, "naps may sleep again\n")
    z.wait_state("naps", "ScaledToZero")


def test_pause_in_the_file_is_not_undone_by_resume(z: Zenvoy) -> None:
    done = z.cli("resume", "fixed")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fixed is paused in the services file: take `paused: true` out there\n"
    assert z.status("fixed")["paused"] is True


def test_pause_survives_a_restart(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults={**QUICK, "idleAfter": "500ms"})
    assert z.cli("pause", "web").returncode == 0
    assert z.stop() == 0
    z.start()
    assert z.status("web")["paused"] is True
    assert request(z.http_port, "web").status == 200
    z.wait_state("web", "Idle")
    z.stays_awake("web", 1.5)
    z.kill("reconciler")
    z.wait_state("web", "Idle")
    z.stays_awake("web", 1.0)
    assert z.cli("resume", "web").returncode == 0
    z.wait_state("web", "ScaledToZero")


# ---- what is not there


@pytest.mark.parametrize("command", ["status", "wake", "sleep", "pause", "resume"])
def test_unknown_service(z: Zenvoy, command: str) -> None:
    for name in ("nobody", "web/wake", "a b"):
        done = z.cli(command, name)
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == f"zenvoy: there is no service {name!r}\n"


@pytest.mark.parametrize("command", ["status", "wake", "sleep", "pause", "resume"])
def test_not_running(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, *([] if command == "status" else ["web"]))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"zenvoy: no zenvoy runs with the state directory {tmp_path}/.zenvoy ")
    assert "zenvoy up FILE" in done.stderr and "--state-dir" in done.stderr and "ZENVOY_STATE_DIR" in done.stderr


def test_not_running_any_more(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")})
    assert z.stop(signal.SIGINT) == 0
    assert z.cli("status").returncode == 3


@pytest.mark.parametrize(
    "wrong", [["status", "-o", "xml"], ["statsu"], ["sleep"], ["up"], ["bootstrap", "--mode", "x"]]
)
def test_wrong_usage(tmp_path: Path, wrong: list[str]) -> None:
    done = run(tmp_path, *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: zenvoy" in done.stderr and "Try 'zenvoy" in done.stderr


# ---- the state directory


def test_state_directory_with_a_long_path(zenvoy: Start) -> None:
    """A Unix socket's path has at most 107 bytes; ours has more. The three ways to name the directory."""
    z = zenvoy({"name": "web", "command": quick("http")}, start=False, defaults=SLOW_TO_SLEEP)
    folder = z.directory / ("d" * 60) / ("e" * 60)
    z.state_dir = folder / ".zenvoy"
    assert len(str(z.state_dir)) > 107
    z.start()
    assert request(z.http_port, "web").body == b"web /\n"
    for done in (
        run(folder, "status", "web", "-o", "json"),
        run(z.directory, "status", "web", "-o", "json", "--state-dir", str(z.state_dir.relative_to(z.directory))),
        run(z.directory, "status", "web", "-o", "json", ZENVOY_STATE_DIR=str(z.state_dir)),
        run(folder, "status", "web", "-o", "json", "--state-dir", str(z.state_dir), ZENVOY_STATE_DIR="/nowhere"),
    ):
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["state"] in ("Active", "Idle")
    assert run(folder, "sleep", "web").returncode == 0
    assert request(z.http_port, "web").body == b"web /\n"
    assert z.stop() == 0
    assert not z.leftovers()
    assert run(folder, "status").returncode == 3


# ---- diagram, help


def test_diagram(tmp_path: Path) -> None:
    done = run(tmp_path, "diagram")
    assert (done.returncode, done.stdout.strip()) == (0, diagram().strip())
    assert done.stdout.startswith("stateDiagram-v2")
    assert all(state.value in done.stdout for state in State)


def test_help_teaches_by_example(tmp_path: Path) -> None:
    text = run(tmp_path, "--help").stdout
    assert "Exit codes: 0 done; 1 " in text
    assert all(re.search(rf"^│ {name} ", text, re.MULTILINE) for name in COMMANDS)
    assert run(tmp_path, "-h").stdout == text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_an_example(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, "--help")
    assert done.returncode == 0
    assert re.search(rf"Examples?:\s+zenvoy {command}\b", done.stdout)


# ---- metrics


def test_metrics_and_probes(z: Zenvoy) -> None:
    reconciler, holder = PROBES
    for address in (reconciler, holder):
        assert get(address, "/healthz") == (200, "ok\n")
        assert get(address, "/readyz") == (200, "ok\n")
    states = {view["name"]: view["state"] for view in z.ask("GET", "/v1/services")["services"]}
    found = samples(reconciler)
    for name, state in states.items():
        of = {one.value: found["zenvoy_service_state", name, one.value] for one in State}
        assert set(of.values()) == {0.0, 1.0} and sum(of.values()) == 1
        assert z.state(name) != state or of[state] == 1
    assert ("zenvoy_service_held", "web", "") in found
    assert any(name.startswith("zenvoy_holder_") for name, _, _ in samples(holder))
    assert get(reconciler, "/v1/services")[0] == 404, "commands are for the control socket only"


def get(address: str, path: str) -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def samples(address: str) -> dict[tuple[str, str, str], float]:
    """By name, service and state."""
    families = text_string_to_metric_families(get(address, "/metrics")[1])
    every = (sample for family in families for sample in family.samples)
    return {(one.name, one.labels.get("service", ""), one.labels.get("state", "")): one.value for one in every}


# ---- bootstrap


@pytest.mark.parametrize(("mode", "form"), [("delta", "yaml"), ("sotw", "json")])
def test_second_envoy_joins(zenvoy: Start, mode: str, form: str) -> None:
    """It serves the same listeners, and since nobody can ask it what is in use, no service sleeps."""
    grpc, admin = (f"{LOCAL}:{free_port()}" for _ in range(2))
    z = zenvoy({"name": "web", "command": quick("http")}, options=("--grpc", grpc))
    done = z.cli(*("bootstrap", "--reconciler", grpc, "--node", "edge-1", "--admin", admin, "--mode", mode, "-o", form))
    assert (done.returncode, done.stderr) == (0, "")
    path = z.directory / f"envoy.{form}"
    path.write_text(done.stdout)
    command = [envoy_binary(None), "-c", str(path), "--disable-hot-restart", "--concurrency", "1"]
    with (z.directory / "edge.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as edge:
        try:
            until("it has joined", lambda: "edge-1" in joined(z))
            assert joined(z)["edge-1"]["mode"] == mode
            until("it has served", lambda: request(z.http_port, "web").status == 200 and served(admin))
            z.stays_awake("web", 2.0)
            view = z.status("web")
            assert (view["state"], view["traffic"]["usage"]) == ("Active", "unknown")
            assert "edge-1" in view["traffic"]["reason"]
            shown = z.cli("status").stdout
            assert "edge-1" in shown, shown
            assert z.cli("sleep", "web").returncode == 1
        finally:
            edge.kill()


def joined(z: Zenvoy) -> dict[str, Any]:
    return {envoy["id"]: envoy for envoy in z.ask("GET", "/v1/services")["envoys"]}


def served(admin: str) -> bool:
    """Whether an Envoy has sent a request on."""
    with urlopen(f"http://{admin}/stats?usedonly&filter=upstream_rq_total") as answer:
        return "upstream_rq_total" in answer.read().decode()


@pytest.mark.parametrize("wrong", [["--reconciler", "nowhere"], ["--admin", "nowhere:1"]])
def test_bootstrap_with_an_address_that_is_none(tmp_path: Path, wrong: list[str]) -> None:
    done = run(tmp_path, "bootstrap", *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("zenvoy: ") and wrong[1] in done.stderr
