"""A real `zenvoy up` for a test: its services file, processes, log, status, and end.

Rule: nothing here sleeps to wait; `until` polls for what is awaited, with a timeout that only a fault reaches. Every
process is ended by its id, regardless of what the test did to it. Counterpart: `conftest.py`, whose `zenvoy` fixture
makes these.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psutil
import yaml

from reconciler.cli import control_client
from reconciler.local.processes.mark import mark
from reconciler.local.processes.procfs import Census, children_of, process_info, run_id, take_census
from tests.ports import free_port

T = TypeVar("T")
View = dict[str, Any]

ZENVOY = Path(sys.executable).with_name("zenvoy")
SERVERS = Path(__file__).parent / "servers"
PATIENCE_SECONDS = 60.0
"""Generous: two busy cores must not make a test fail."""
START_SECONDS = 180.0
"""The same for a start: the programs are read from a disk that other tests keep busy."""
POLL_SECONDS = 0.01
LOCAL = "127.0.0.1"
QUICK = {"idleAfter": "1s", "wakeTimeout": "60s", "holdTimeout": "60s", "drainTimeout": "30s"}
"""The default of `defaults`. A slow machine may outlive `idleAfter`: see `Zenvoy.kept_awake`."""
SLOW_TO_SLEEP = {**QUICK, "idleAfter": "10m"}
"""For tests that put services to sleep themselves."""
_AWAKE = ("Active", "Idle")


def until(what: str, check: Callable[[], T | None], timeout: float = PATIENCE_SECONDS) -> T:
    """Return the first truthy answer of `check`; raise `AssertionError` with `what` if there is none in time."""
    end = time.monotonic() + timeout
    while not (answer := check()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(POLL_SECONDS)
    return answer


def server(name: str, *arguments: str, port: str = "{port}") -> list[str]:
    """Return the command of a test server, `servers/NAME.py`, which takes the port first."""
    return [sys.executable, str(SERVERS / f"{name}.py"), port, *arguments]


def quick(protocol: str, *options: str) -> list[str]:
    """Return the command of `servers/quick.py`, which starts in a fraction of the time that others take."""
    return [sys.executable, "-I", "-S", str(SERVERS / "quick.py"), "{port}", protocol, *options]


def gated(command: Sequence[str], gate: str = "go") -> list[str]:
    """Return the command, run only after `Zenvoy.open_gate`: a start that takes exactly as long as needed."""
    wait = f'while [ ! -e {gate} ]; do sleep 0.02; done; exec "$@"'
    return ["sh", "-c", wait, "sh", *command]


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply, read whole; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request(
    port: int,
    host: str,
    path: str = "/",
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = PATIENCE_SECONDS,
) -> Reply:
    """Send a request over its own connection. Raises `OSError` and `http.client.HTTPException`."""
    connection = http.client.HTTPConnection(LOCAL, port, timeout=timeout)
    try:
        connection.request(method, path, body, {"Host": host, **(headers or {})})
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, named, response.read())
    finally:
        connection.close()


def listen_addresses(config: dict[str, Any]) -> dict[str, Any]:
    """Return the same services file with a free port wherever a required one is missing."""
    services = [dict(service) for service in config["services"]]
    kinds = {service.get("protocol", "http") for service in services}
    listen = dict(config.get("listen", {}))
    if kinds & {"http", "h2c"}:
        listen.setdefault("http", f"{LOCAL}:{free_port()}")
    if "tls" in kinds:
        listen.setdefault("tls", f"{LOCAL}:{free_port()}")
    for service in services:
        if service.get("protocol") == "tcp":
            service.setdefault("listen", f"{LOCAL}:{free_port()}")
    return {**config, "listen": listen, "services": services}


class Zenvoy:
    """One `zenvoy up`, in a directory of its own. May be started again after it was stopped or killed.

    `config` is the services file; listen addresses that are missing are filled in, as is `defaults` (`QUICK`).
    `options` are further ones of `up`; `prefix` goes before the command (to run it as another user, say).
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        *,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.file = directory / "services.yaml"
        self.state_dir = directory / "state"
        self.log_path = directory / "up.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._options, self._prefix = tuple(options), tuple(prefix)
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._entries: list[dict[str, Any]] = []
        self._read = 0
        self._started_at = 0
        self._known: dict[int, psutil.Process] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self.config: dict[str, Any] = {}
        self.write(config)

    # ---- the file

    def write(self, config: Mapping[str, Any]) -> None:
        """Replace the services file; addresses that it does not name stay as they were."""
        before = {service["name"]: service for service in self.config.get("services", [])}
        services = [dict(service) for service in config["services"]]
        for service in services:
            old = before.get(service["name"], {})
            if service.get("protocol") == "tcp" and old.get("protocol") == "tcp":
                service.setdefault("listen", old["listen"])
        listen = {**self.config.get("listen", {}), **config.get("listen", {})}
        self.config = listen_addresses(
            {"defaults": QUICK, "sampleInterval": "200ms", **config, "listen": listen, "services": services}
        )
        if not self.config["listen"]:
            del self.config["listen"]
        fresh = self.file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(self.config, sort_keys=False))
        fresh.replace(self.file)

    @property
    def http_port(self) -> int:
        return int(self.config["listen"]["http"].rpartition(":")[2])

    @property
    def tls_port(self) -> int:
        return int(self.config["listen"]["tls"].rpartition(":")[2])

    def port(self, name: str) -> int:
        """Return the port of the service's own listener of Envoy."""
        services = {service["name"]: service for service in self.config["services"]}
        return int(services[name]["listen"].rpartition(":")[2])

    # ---- the process

    def start(self, wait: bool = True) -> None:
        """Start `up`, and return once it serves, unless `wait` is false."""
        assert self.process is None or self.process.returncode is not None, "it runs already"
        self._started_at = len(self.lines())
        command = [*self._prefix, str(ZENVOY), "up", str(self.file), "--log", "json"]
        command += ["--state-dir", str(self.state_dir), *self._options]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self._environment,
                start_new_session=True,
            )
        if wait:
            self.wait_serving()

    def wait_serving(self) -> None:
        """Wait until the current `up` reports that it serves."""

        def serves() -> bool:
            assert self.process
            code = self.process.poll()
            assert code is None, f"`zenvoy up` ended with {code}: {self.log_path.read_text(errors='replace')[-2000:]}"
            return any(entry["event"] == "serving" for entry in self.lines()[self._started_at :])

        until("`zenvoy up` serves", serves, START_SECONDS)
        self._remember()

    def stop(self, number: int = signal.SIGTERM, timeout: float = PATIENCE_SECONDS) -> int:
        """Signal `up`, and return its exit code."""
        assert self.process, "it was never started"
        self._remember()
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def pids(self) -> dict[str, int]:
        """Return the process ids of `up` and of its processes that run: up, reconciler, holder, keeper, envoy."""
        assert self.process
        return {"up": self.process.pid, **{name: seen.pid for name, seen in children_of(run_id(self.state_dir))}}

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Signal one of `pids()`, and return its process id."""
        self._remember()
        pid = self.pids()[name]
        os.kill(pid, number)
        return pid

    def kill_together(self, *names: str) -> None:
        """Kill some of `pids()`; `up` is stopped before: it neither starts one again nor ends before the others."""
        with self._stopped() as pids:
            for name in sorted(names, key=lambda name: name == "up"):
                os.kill(pids[name], signal.SIGKILL)

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """Kill some of `pids()`, and let `up` start them again only after the block."""
        with self._stopped() as pids:
            for name in names:
                os.kill(pids[name], signal.SIGKILL)
            yield

    @contextmanager
    def _stopped(self) -> Iterator[dict[str, int]]:
        """Stop `up` for the block."""
        assert self.process
        self._remember()
        pids = self.pids()
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield pids
        finally:
            self.process.send_signal(signal.SIGCONT)

    def service_pids(self, name: str) -> list[int]:
        """Return the running processes of a service."""
        if not self.state_dir.exists():
            return []
        leader = self._leader(name)
        family = self._census().family(mark(run_id(self.state_dir), name), process_info(leader) if leader else None)
        return [seen.pid for seen in family]

    def leftovers(self) -> list[psutil.Process]:
        """Return the running processes that were seen as part of this, or are marked as one of its services."""
        marked = {seen.pid for family in self._census().by_mark.values() for seen in family}
        found = {pid: process for pid, process in self._known.items() if _runs(process)}
        for pid in marked - found.keys():
            try:
                found[pid] = psutil.Process(pid)
            except psutil.NoSuchProcess:
                continue
        return list(found.values())

    def close(self) -> None:
        """End everything that this started, and its descendants."""
        if self.process is None:
            return
        self._remember()
        for seconds in (2, 2, 8):  # each further signal ends the current wait
            if self.process.poll() is None:
                self.process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(seconds)
        while left := self.leftovers():
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(left, 2)
        self.process.wait()

    def __enter__(self) -> Zenvoy:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # ---- logs and status

    def lines(self) -> list[dict[str, Any]]:
        """Return the log of `up` over all its runs; lines that are not JSON have the event `output`."""
        if self.log_path.exists():
            with self.log_path.open("rb") as log:
                log.seek(self._read)
                text = log.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read += len(whole)
            self._entries += [_entry(line) for line in whole.splitlines()]
        return self._entries

    def wait_line(
        self, what: str, check: Callable[[dict[str, Any]], bool], after: int = 0, timeout: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """Return the first log entry from number `after` on that `check` accepts."""
        return until(what, lambda: next((entry for entry in self.lines()[after:] if check(entry)), None), timeout)

    def transitions(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the transitions so far (service, source, target, reason, cause), of one service or all.

        The log has a transition a moment after the status. Those of one service are complete, but for those that a
        killed reconciler did not write.
        """
        if name is not None:
            self._wait_logged(name)
        of = [entry for entry in self.lines() if entry["event"] == "transition"]
        return [entry for entry in of if name in (None, entry["service"])]

    def _wait_logged(self, name: str) -> None:
        """Wait until the log has the latest transition of a service, if a reconciler answers and knows one."""
        try:
            known = self.ask("GET", f"/v1/services/{name}/explain")["transitions"]
        except (control_client.NotRunning, control_client.RequestRejected):
            return
        if known:
            what = f"the log has that {name} is {known[0]['to']} by {known[0]['event']}"
            until(what, lambda: any(_is_of(entry, name, known[0]) for entry in reversed(self.lines())))

    def states(self, name: str) -> list[str]:
        """Return the states that a service went into so far."""
        return [entry["target"] for entry in self.transitions(name) if entry["target"] != entry["source"]]

    def wakes(self, name: str) -> int:
        """Return the number of transitions from ScaledToZero to Waking."""
        entered = [(entry["source"], entry["target"]) for entry in self.transitions(name)]
        return entered.count(("ScaledToZero", "Waking"))

    def ask(self, method: str, path: str) -> Any:
        """Ask the control socket, like `zenvoy status` does."""
        return control_client.ask(self.state_dir / "control.sock", method, path)

    def status(self, name: str) -> View:
        """Return a service as `zenvoy status NAME -o json` shows it."""
        return dict(self.ask("GET", f"/v1/services/{name}"))

    def statuses(self) -> dict[str, View]:
        """Return the services by name."""
        return {view["name"]: view for view in self.ask("GET", "/v1/services")["services"]}

    def state(self, name: str) -> str:
        """Return a service's state; `Unknown` while the reconciler does not answer."""
        try:
            return str(self.status(name)["state"])
        except control_client.NotRunning:
            return "Unknown"

    def wait_state(self, name: str, *states: str, timeout: float = PATIENCE_SECONDS) -> View:
        """Wait until a service is in one of the states, and return its status."""

        def look() -> View | None:
            try:
                view = self.status(name)
            except control_client.NotRunning:
                return None
            return view if view["state"] in states else None

        return until(f"{name} is {' or '.join(states)}", look, timeout)

    def wait_status(self, what: str, name: str, check: Callable[[View], Any]) -> View:
        """Wait until `check` accepts a service's status, and return it."""

        def look() -> View | None:
            try:
                view = self.status(name)
            except control_client.NotRunning:
                return None
            return view if check(view) else None

        return until(f"{name}: {what}", look)

    def cli(self, *arguments: str, timeout: float = PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a `zenvoy` command that finds this one, and return its output."""
        environment = {**self._environment, "ZENVOY_STATE_DIR": str(self.state_dir)}
        command = [*self._prefix, str(ZENVOY), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=self.directory, timeout=timeout, check=False
        )

    def cli_sleep(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run `zenvoy sleep`, and return its output; again if usage was unknown, as after a stop of the machine."""

        def sleep() -> subprocess.CompletedProcess[str] | None:
            before = len(self.transitions(name))
            done = self.cli("sleep", name)
            causes = {entry["cause"] for entry in self.transitions(name)[before:]}
            return None if done.returncode and "TrafficUnknown" in causes else done

        return until(f"usage of {name} is known during a sleep", sleep)

    def wake(self, name: str) -> View:
        """Wake a service by command, and return its status once it is awake."""
        self.ask("POST", f"/v1/services/{name}/wake")
        return self.wait_state(name, *_AWAKE)

    def wake_until(self, what: str, name: str, check: Callable[[View], Any]) -> View:
        """Wake a service by command, and again if a wake ends in vain, until `check` accepts its status."""

        def look() -> View | None:
            view = self.status(name)
            if check(view):
                return view
            if view["state"] == "ScaledToZero":
                self.ask("POST", f"/v1/services/{name}/wake")
            return None

        return until(f"{name}: {what}", look)

    @contextmanager
    def kept_awake(self, name: str) -> Iterator[None]:
        """Pause a service for the block, so that it does not fall asleep before the next step of a test."""
        self.ask("POST", f"/v1/services/{name}/pause")
        yield
        self.ask("POST", f"/v1/services/{name}/resume")

    def wait_straight(self, name: str) -> View:
        """Wait until Envoy sends new connections past the holder, and return the status."""
        return self.wait_status(
            "Envoy knows where it runs",
            name,
            lambda view: view["endpoints"] and view["route"]["ackedAt"] and view["route"]["to"] == view["endpoints"],
        )

    def woken(self, name: str) -> View:
        """Return a service's status once a client's wake is reported in full, with its parts in order."""
        parts = ["signal", "started", "reachable", "firstByte"]
        return self.wait_status(
            "its wake is reported in full",
            name,
            lambda view: view["lastWake"] and list(view["lastWake"]["parts"]) == parts,
        )

    def sleep(self, name: str, *, has_ended: bool = True) -> View:
        """Put it to sleep by command, again and again while it is in use; its status once it sleeps.

        With `has_ended`, its program has ended then.
        """

        def asleep() -> View | None:
            view = self.status(name)
            if view["state"] in _AWAKE:
                self.ask("POST", f"/v1/services/{name}/sleep")
            return view if view["state"] == "ScaledToZero" and (view["replicas"] == 0 or not has_ended) else None

        return until(f"{name} sleeps", asleep)

    def open_gate(self, gate: str = "go") -> None:
        """Let the `gated` commands of that gate run."""
        (self.directory / gate).touch()

    def stays_awake(self, name: str, seconds: float) -> None:
        """Look for so long: it is awake all the time, and was never about to sleep since this was called."""
        before, end = len(self.transitions(name)), time.monotonic() + seconds
        pids = self.service_pids(name)
        while time.monotonic() < end:
            assert self.state(name) in _AWAKE
            time.sleep(5 * POLL_SECONDS)
        assert not {"Draining", "ScaledToZero", "Waking"} & {e["target"] for e in self.transitions(name)[before:]}
        assert set(pids) <= set(self.service_pids(name))

    def asleep(self, name: str) -> View:
        """Assert that a service is asleep and that its processes end, and return its status."""
        view = self.status(name)
        assert view["state"] == "ScaledToZero", view
        until(f"no process of {name} is left", lambda: not self.service_pids(name))
        return view

    def output(self, name: str) -> str:
        """Return the output of the service's program so far."""
        path = self.state_dir / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def logs(self) -> str:
        """Return the logs, for a failed test."""
        parts = [f"---- {self.file}\n{self.file.read_text()}"]
        for path in (self.log_path, *sorted((self.state_dir / "logs").glob("*"))):
            if path.is_file():
                text = path.read_bytes()[-20_000:].decode(errors="replace")
                parts.append(f"---- {path.relative_to(self.directory)}\n{text}")
        try:
            parts.append(f"---- status\n{json.dumps(self.ask('GET', '/v1/services'), indent=1)}")
        except (control_client.ControlError, OSError) as error:
            parts.append(f"---- status\n{error}")
        return "\n".join(parts)

    def _remember(self) -> None:
        """Record the processes below `up`: once it is killed, they can no longer be found."""
        if self.process is None or self.process.returncode is not None:
            return
        try:
            root = psutil.Process(self.process.pid)
            for process in (root, *root.children(recursive=True)):
                self._known[process.pid] = process
        except psutil.NoSuchProcess:
            pass

    def _census(self) -> Census:
        return take_census(run_id(self.state_dir)) if self.state_dir.exists() else Census({}, {}, {})

    def _leader(self, name: str) -> int | None:
        """Return the process that was started for a service; some, like Redis, overwrite their mark."""
        try:
            return int(json.loads((self.state_dir / "processes" / f"{name}.json").read_bytes())["pid"])
        except (OSError, ValueError):
            return None


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_of(entry: Mapping[str, Any], name: str, transition: Mapping[str, Any]) -> bool:
    """Return whether a log entry is this transition, and not an earlier one that is equal to it."""
    if entry["event"] != "transition" or entry["service"] != name:
        return False
    logged = (entry["source"], entry["target"], entry["cause"], entry["reason"])
    if logged != tuple(transition[part] for part in ("from", "to", "event", "reason")):
        return False
    return datetime.fromisoformat(entry["timestamp"]) >= datetime.fromisoformat(transition["at"])


def _entry(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) and "event" in found else {"event": "output", "text": line.decode()}
