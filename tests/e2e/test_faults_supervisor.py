"""The end of `zenvoy up`, by a signal or kill -9, and the errors of a second one; nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from reconciler.local.processes.procfs import run_id
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, ZENVOY, Zenvoy, quick, request, until
from tests.ports import free_port

STAYS = {**QUICK, "idleAfter": "10m", "drainTimeout": "10m"}
"""An end that waits for `drainTimeout` without a reason takes longer than `Zenvoy.stop` waits."""


def traces(z: Zenvoy) -> list[str]:
    """Return the processes of this zenvoy, by command line, directory or environment."""
    marks = (str(z.directory).encode(), run_id(z.state_dir).encode())
    found = []
    for process in psutil.process_iter():
        place = Path(f"/proc/{process.pid}")
        try:
            said = [(place / part).read_bytes() for part in ("cmdline", "environ")]
            said.append(os.readlink(place / "cwd").encode())
        except OSError:
            continue
        if any(mark in text for mark in marks for text in said):
            found.append(f"{process.pid}: {said[0].decode()}")
    return found


def in_flight(view: dict[str, Any]) -> bool:
    return bool(view["traffic"]) and view["traffic"]["reason"].endswith(" 1 in flight")


def ends_in_order(z: Zenvoy, number: int) -> None:
    assert z.stop(number) == 0
    assert not z.leftovers()
    assert not traces(z)


@pytest.mark.parametrize(
    ("state", "number"),
    [
        ("ScaledToZero", signal.SIGTERM),
        ("Waking", signal.SIGINT),
        ("Waking", signal.SIGTERM),
        ("Active", signal.SIGTERM),
        ("Draining", signal.SIGINT),
    ],
)
def test_up_signal_ends_all_in_order(
    zenvoy: Start, tmp_path: Path, pool: ThreadPoolExecutor, state: str, number: int
) -> None:
    gate = tmp_path / "gate"
    options = {"Waking": [f"gate={gate}"], "Active": ["stubborn"], "Draining": ["stubborn"]}.get(state, [])
    z = zenvoy({"name": "web", "command": quick("http", *options)}, defaults={**STAYS, "drainTimeout": "1s"})
    if state == "Waking":
        waiting = pool.submit(request, z.http_port, "web")
        z.wait_status("a client is waiting", "web", lambda view: view["held"] == 1)
    elif state != "ScaledToZero":
        z.wake("web")
        waiting = pool.submit(request, z.http_port, "web", f"/until{gate}")
        # Until a sample counts the request the service may be seen Idle, by a sample from before it; from then on not.
        z.wait_status("its request is in flight", "web", in_flight)
    if state == "Draining":  # which it is for `drainTimeout`: the signal may come later
        assert z.ask("POST", "/v1/services/web/sleep")["state"] == state
    else:
        assert z.state("web") == state
    before = len(z.transitions())
    ends_in_order(z, number)
    assert not [entry for entry in z.transitions()[before:] if "not connected" in entry["reason"]]
    if state != "ScaledToZero":
        assert waiting.exception() or waiting.result().status == 503


def test_up_ctrl_c_to_process_group_ends_all_in_order(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=STAYS)
    z.wake("web")
    assert z.process
    os.killpg(z.process.pid, signal.SIGINT)
    ends_in_order(z, signal.SIGINT)  # and once more, as people do


def test_up_signal_while_starting_ends_all(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=STAYS, start=False)
    z.start(wait=False)
    until("the first process runs", lambda: z.state_dir.exists() and len(z.pids()) > 1)
    ends_in_order(z, signal.SIGTERM)


@pytest.mark.parametrize("killed", ["reconciler", "holder", "envoy"])
def test_up_signal_after_a_kill_ends_all(zenvoy: Start, killed: str) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=STAYS)
    z.wake("web")
    z.kill(killed)
    ends_in_order(z, signal.SIGTERM)


@pytest.mark.parametrize("state", ["ScaledToZero", "Waking", "Active"])
def test_up_after_a_kill_starts_again(zenvoy: Start, tmp_path: Path, pool: ThreadPoolExecutor, state: str) -> None:
    gate = tmp_path / "gate"
    waits = [f"gate={gate}"] if state == "Waking" else []
    z = zenvoy(
        {"name": "web", "command": quick("http", *waits)},
        {"name": "db", "protocol": "tcp", "command": quick("tcp")},
        defaults=STAYS,
    )
    if state == "Active":
        z.wake("web")
    elif state == "Waking":
        pool.submit(request, z.http_port, "web")
        z.wait_status("a client is waiting", "web", lambda view: view["held"] == 1)
    pids = z.service_pids("web")
    assert len(pids) == (state != "ScaledToZero")
    z.kill("up")
    assert z.process
    z.process.wait()
    gate.touch()
    z.start()
    assert z.service_pids("web") == pids, "what ran is adopted"
    assert request(z.http_port, "web", "/after").body == b"web /after\n"
    with socket.create_connection((LOCAL, z.port("db"))) as client:
        client.sendall(b"after\n")
        assert client.recv(100) == b"db after\n"
    for name in ("web", "db"):
        z.sleep(name)
        z.asleep(name)
    assert request(z.http_port, "web", "/again").body == b"web /again\n"
    ends_in_order(z, signal.SIGTERM)


def test_up_after_a_kill_applies_another_file(zenvoy: Start) -> None:
    """Removed and replaced programs end; the others continue."""
    names = ("same", "changed", "removed")
    z = zenvoy(*({"name": name, "command": quick("http")} for name in names), defaults=STAYS)
    for name in names:
        z.wake(name)
    pids = {name: z.service_pids(name) for name in names}
    z.kill_together("up", "reconciler")  # or that would apply the new file still
    assert z.process
    z.process.wait()
    services = [{"name": "same", "command": quick("http")}, {"name": "changed", "command": quick("http", "as=new")}]
    z.write({"services": services, "defaults": STAYS})
    z.start()
    assert request(z.http_port, "same").body == b"same /\n"
    assert request(z.http_port, "changed").body == b"new /\n"
    assert request(z.http_port, "removed").status == 404
    until("what was removed has ended", lambda: not psutil.pid_exists(pids["removed"][0]))
    assert z.service_pids("same") == pids["same"]
    assert pids["changed"][0] not in z.service_pids("changed")
    ends_in_order(z, signal.SIGTERM)


def test_up_second_on_same_ports_reports_owner(zenvoy: Start) -> None:
    metrics = f"{LOCAL}:{free_port()}"
    services = {"name": "web", "command": quick("http")}, {"name": "db", "protocol": "tcp", "command": quick("tcp")}
    first = zenvoy(*services, defaults=STAYS, options=("--metrics", metrics))
    first.wake("web")
    second = zenvoy(*services, defaults=STAYS, start=False, options=("--metrics", metrics))
    second.write(first.config)
    done = subprocess.run(
        [str(ZENVOY), "up", str(second.file), "--metrics", metrics, "--state-dir", str(second.state_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    envoy, reconciler = (str(first.pids()[name]) for name in ("envoy", "reconciler"))
    for address in (f"{LOCAL}:{first.http_port}", f"{LOCAL}:{first.port('db')}"):
        line = next(line for line in done.stderr.splitlines() if address in line)
        assert "in use" in line and envoy in line and "envoy" in line
    assert reconciler in next(line for line in done.stderr.splitlines() if metrics in line)
    assert not traces(second)
    assert request(first.http_port, "web").body == b"web /\n"
    assert first.wakes("web") == 1


def test_up_second_in_state_directory_is_refused(zenvoy: Start) -> None:
    first = zenvoy({"name": "web", "command": quick("http")}, defaults=STAYS)
    first.wake("web")
    pids = first.pids(), first.service_pids("web")
    second = zenvoy({"name": "other", "command": quick("http")}, defaults=STAYS, start=False)
    command = [str(ZENVOY), "up", str(second.file), "--state-dir", str(first.state_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done
    assert str(first.state_dir) in done.stderr
    assert f"process {pids[0]['up']};" in done.stderr
    assert "Traceback" not in done.stderr
    assert (first.pids(), first.service_pids("web")) == pids
    assert request(first.http_port, "web").body == b"web /\n"
    ends_in_order(first, signal.SIGTERM)


def test_up_with_few_open_files_reports_the_limit(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, start=False)
    started = f"ulimit -n 100; exec {ZENVOY} up {z.file} --state-dir {z.state_dir}"
    done = subprocess.run(["sh", "-c", started], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "zenvoy: open files 100: Envoy requires at least 256; raise `ulimit -n`\n"


def test_up_unwritable_state_directory_is_reported(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, start=False)
    z.state_dir.write_text("a file is in the way")
    command = [str(ZENVOY), "up", str(z.file), "--state-dir", str(z.state_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--state-dir" in done.stderr
    assert "is not a directory" in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
