"""The demo of `make demo`: two real services that fall asleep and wake behind a real Envoy.

If Prometheus is installed, zenvoy uses it as the source of traffic; otherwise it reads Envoy's counters itself. The
demo ends within a minute of serving. Exit codes: 0 success; 1 something shown did not happen; 130 Ctrl-C. With `--keep`
it runs until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "services.yaml"
ZENVOY = Path(sys.executable).with_name("zenvoy")
HTTP, TCP = "http://127.0.0.1:10000/", ("127.0.0.1", 10001)
HOST = "hello.localhost"
TIMEOUT_SECONDS = 60.0
"""For zenvoy to serve, and then for everything that is shown."""
COLORS = {"ScaledToZero": "34", "Waking": "33", "Active": "32", "Idle": "36", "Draining": "35"}
PARTS = {
    "signal": "signal: the reconciler learns of the held connection and decides",
    "started": "process start",
    "reachable": "reachable: its port accepts a connection",
    "firstByte": "first byte of the answer",
}


class DidNotHappen(Exception):
    """Something that the demo shows did not happen."""


class Timeline:
    """zenvoy's log, printed line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self._began = process, time.monotonic()
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._end = self._began + TIMEOUT_SECONDS
        threading.Thread(target=self._read, daemon=True).start()

    def show(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:7.2f} s  {text}", flush=True)

    def until(self, what: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Print log entries up to the first that is `wanted`, and return it."""
        while (left := self.seconds_left) > 0:
            try:
                entry = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if entry["event"] == "ended":
                raise DidNotHappen(f"zenvoy ended before {what}; exit code {self._process.wait()}")
            if entry["event"] == "failed":
                raise DidNotHappen(entry["reason"])
            self._show(entry)
            if wanted(entry):
                return entry
        raise DidNotHappen(f"{what} within {TIMEOUT_SECONDS:g} s")

    def serving(self) -> None:
        """Print log entries until zenvoy serves, and restart the timeout."""
        self.until("zenvoy serves", lambda entry: entry["event"] == "serving")
        self._end = time.monotonic() + TIMEOUT_SECONDS

    def follow(self) -> None:
        """Print log entries until zenvoy ends."""
        while (entry := self._lines.get())["event"] != "ended":
            self._show(entry)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def fail(self, reason: str) -> None:
        """Stop waiting with an error. Can be called from any thread."""
        self._lines.put({"event": "failed", "reason": reason})

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            try:
                self._lines.put(json.loads(line))
            except ValueError:
                self._lines.put({"event": "output", "level": "info", "text": line.rstrip()})
        self._lines.put({"event": "ended"})

    def _show(self, entry: dict[str, Any]) -> None:
        match entry["event"]:
            case "transition":
                states = f"{state(entry['source'])} → {state(entry['target'])}"
                self.show(f"  {entry['service']:<8} {states}  {entry['reason']}")
            case "woken":
                client = f" by {entry['peer']}" if entry["peer"] else ""
                self.show(f"  {entry['service']:<8} woken{client} in {entry['total'] * 1000:.0f} ms:")
                for part, seconds in entry["parts"].items():
                    self.show(f"  {'':<8} {seconds * 1000:8.1f} ms  {PARTS.get(part, part)}")
            case "output":
                self.show(f"  {entry['text']}")
            case _ if entry["level"] != "info":
                self.show(f"  {entry['event']} {entry}")


def state(name: str) -> str:
    padded = f"{name:<12}"
    return f"\033[{COLORS[name]}m{padded}\033[0m" if sys.stdout.isatty() else padded


def curl() -> str:
    """Send one HTTP request, with curl if it is installed, and return the answer."""
    if shutil.which("curl"):
        command = ["curl", "-sS", "--fail", "--max-time", "20", "-H", f"Host: {HOST}", HTTP]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DidNotHappen(f"curl failed: {done.stderr.strip()}")
        return done.stdout.strip()
    request = urllib.request.Request(HTTP, headers={"Host": HOST})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode().strip())


def greet() -> str:
    """Send one line over TCP, and return the answer."""
    with socket.create_connection(TCP, timeout=20) as connection:
        connection.sendall(b"zenvoy\n")
        return connection.makefile().readline().strip()


def connect(timeline: Timeline, service: str, client: Callable[[], str], expected: str) -> None:
    """Connect to a sleeping service and check the answer that arrives after the wake."""
    answers: queue.Queue[str] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(client())
        except Exception as error:
            timeline.fail(f"the answer of {service}: {error}")

    began = time.monotonic()
    threading.Thread(target=ask, daemon=True).start()
    timeline.until(f"{service} woke", lambda entry: entry["event"] == "woken" and entry["service"] == service)
    try:
        answer = answers.get(timeout=timeline.seconds_left)
    except queue.Empty:
        raise DidNotHappen(f"{service} did not answer within {TIMEOUT_SECONDS:g} s") from None
    timeline.show(f"  {'':<8} the client has its answer after {(time.monotonic() - began) * 1000:.0f} ms: “{answer}”")
    if expected not in answer:
        raise DidNotHappen(f"{service} answered {answer!r}; expected {expected!r} in it")


def falls_asleep(*services: str) -> Callable[[dict[str, Any]], bool]:
    awake = set(services)

    def seen(entry: dict[str, Any]) -> bool:
        if entry["event"] == "transition" and entry["target"] == "ScaledToZero":
            awake.discard(entry["service"])
        return not awake

    return seen


def asleep_in(prometheus: str) -> set[str]:
    """Return the services that sleep according to Prometheus."""
    query = urllib.parse.urlencode({"query": 'zenvoy_service_state{state="ScaledToZero"} == 1'})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=5) as answer:
        return {row["metric"]["service"] for row in json.load(answer)["data"]["result"]}


def seen_by(prometheus: str, timeline: Timeline, *services: str) -> None:
    """Wait until Prometheus has scraped that these services sleep."""
    while not asleep_in(prometheus).issuperset(services):
        if not timeline.seconds_left:
            raise DidNotHappen(f"Prometheus did not report that {' and '.join(services)} sleep")
        time.sleep(0.1)
    timeline.show(f'In Prometheus, zenvoy_service_state{{state="ScaledToZero"}} is 1 for {", ".join(services)}.')


def show(timeline: Timeline) -> None:
    prometheus = None
    if shutil.which("prometheus"):
        started = timeline.until("Prometheus is started", lambda entry: entry["event"] == "Prometheus")
        prometheus = str(started["at"])
        timeline.show(f"Prometheus scrapes Envoy every second and is the source of traffic: {prometheus}")
    timeline.serving()
    timeline.show("Envoy, the reconciler, and the holder are running. hello and greeter are not.")
    timeline.show(f"$ curl http://{HOST}:10000/")
    connect(timeline, "hello", curl, "hello from process")
    timeline.show("$ a TCP client connects to 127.0.0.1:10001 and sends “zenvoy”")
    connect(timeline, "greeter", greet, "good day, zenvoy")
    timeline.show("No more clients connect. idleAfter is 4 s.")
    timeline.until("both fell asleep", falls_asleep("hello", "greeter"))
    timeline.show("Both services sleep again: their processes have ended.")
    if prometheus:
        seen_by(prometheus, timeline, "hello", "greeter")
    timeline.show("Wake hello once more:")
    timeline.show(f"$ curl http://{HOST}:10000/")
    connect(timeline, "hello", curl, "hello from process")


def keep(timeline: Timeline, state_dir: str) -> None:
    timeline.serving()
    zenvoy = f"{ZENVOY.relative_to(Path.cwd()) if ZENVOY.is_relative_to(Path.cwd()) else ZENVOY}"
    print(
        f"""
zenvoy is running; press Ctrl-C to stop it. In another terminal:

  curl -H 'Host: {HOST}' {HTTP}
  exec 3<>/dev/tcp/{TCP[0]}/{TCP[1]} && echo zenvoy >&3 && head -n 1 <&3
  {zenvoy} status --watch --state-dir {state_dir}
  {zenvoy} sleep hello --state-dir {state_dir}
""",
        flush=True,
    )
    timeline.follow()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--keep", action="store_true", help="keep running, and print commands to try")
    wanted = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="zenvoy-demo-") as state_dir:
        command = [str(ZENVOY), "up", str(FILE), "--log", "json", "--state-dir", state_dir]
        command += ["--with-prometheus"] if shutil.which("prometheus") else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        timeline = Timeline(process)
        try:
            keep(timeline, state_dir) if wanted.keep else show(timeline)
        except DidNotHappen as error:
            timeline.show(f"This did not happen: {error}")
            return 1
        except KeyboardInterrupt:
            if not wanted.keep:
                return 130
        finally:
            process.terminate()
            code = process.wait(10)
        timeline.show(f"zenvoy has stopped everything that it started (exit code {code}).")
        return 0 if code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
