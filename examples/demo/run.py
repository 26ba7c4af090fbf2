"""`make demo`: a real zenvoy, a real Envoy and two real services; they fall asleep and wake, and this tells how.

Where Prometheus is installed it scrapes Envoy, and says what is in use; otherwise Envoy is asked itself.
Ends by itself within a minute of serving, with exit code 0, and with 1 when anything that it shows did not happen (130
upon Ctrl-C). `--keep` stays up instead.
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
PATIENCE_SECONDS = 60.0
"""For zenvoy to serve; then for all that is shown."""
COLOURS = {"ScaledToZero": "34", "Waking": "33", "Active": "32", "Idle": "36", "Draining": "35"}
PARTS = {
    "signal": "signal: the held connection reaches the reconciler, which decides",
    "started": "process start",
    "reachable": "reachable: its port answers",
    "firstByte": "first byte of the reply",
}


class DidNotHappen(Exception):
    """The demo showed something that is not so."""


class Timeline:
    """zenvoy's own log, line by line, printed as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self._began = process, time.monotonic()
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._end = self._began + PATIENCE_SECONDS
        threading.Thread(target=self._read, daemon=True).start()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:7.2f} s  {text}", flush=True)

    def until(self, what: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Print what happens until `wanted` does."""
        while (left := self.seconds_left) > 0:
            try:
                entry = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if entry["event"] == "ended":
                raise DidNotHappen(f"zenvoy ended before {what}; exit code {self._process.wait()}")
            if entry["event"] == "failed":
                raise DidNotHappen(entry["why"])
            self._show(entry)
            if wanted(entry):
                return entry
        raise DidNotHappen(f"{what}: not within {PATIENCE_SECONDS:g} s")

    def serving(self) -> None:
        """Print what happens until zenvoy serves; what is shown has its time from then on."""
        self.until("zenvoy serves", lambda entry: entry["event"] == "serving")
        self._end = time.monotonic() + PATIENCE_SECONDS

    def follow(self) -> None:
        """Print all that happens until zenvoy ends."""
        while (entry := self._lines.get())["event"] != "ended":
            self._show(entry)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def fail(self, why: str) -> None:
        """What is waited for will not happen. From any thread."""
        self._lines.put({"event": "failed", "why": why})

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
                self.say(f"  {entry['service']:<8} {states}  {entry['reason']}")
            case "woken":
                waited = f"; {entry['peer']} waited" if entry["peer"] else ""
                self.say(f"  {entry['service']:<8} woken in {entry['total'] * 1000:.0f} ms{waited}:")
                for part, seconds in entry["parts"].items():
                    self.say(f"  {'':<8} {seconds * 1000:8.1f} ms  {PARTS.get(part, part)}")
            case "output":
                self.say(f"  {entry['text']}")
            case _ if entry["level"] != "info":
                self.say(f"  {entry['event']} {entry}")


def state(name: str) -> str:
    padded = f"{name:<12}"
    return f"\033[{COLOURS[name]}m{padded}\033[0m" if sys.stdout.isatty() else padded


def curl() -> str:
    """One request over HTTP, by curl where there is one."""
    if shutil.which("curl"):
        command = ["curl", "-sS", "--fail", "--max-time", "20", "-H", f"Host: {HOST}", HTTP]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DidNotHappen(f"curl failed: {done.stderr.strip()}")
        return done.stdout.strip()
    request = urllib.request.Request(HTTP, headers={"Host": HOST})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return str(reply.read().decode().strip())


def greet() -> str:
    """One conversation over plain TCP."""
    with socket.create_connection(TCP, timeout=20) as connection:
        connection.sendall(b"zenvoy\n")
        return connection.makefile().readline().strip()


def connect(timeline: Timeline, service: str, client: Callable[[], str], expected: str) -> None:
    """A client connects to a sleeping service, waits while it wakes, and is answered."""
    replies: queue.Queue[str] = queue.Queue()

    def ask() -> None:
        try:
            replies.put(client())
        except Exception as error:
            timeline.fail(f"the reply of {service}: {error}")

    began = time.monotonic()
    threading.Thread(target=ask, daemon=True).start()
    timeline.until(f"{service} woke", lambda entry: entry["event"] == "woken" and entry["service"] == service)
    try:
        reply = replies.get(timeout=timeline.seconds_left)
    except queue.Empty:
        raise DidNotHappen(f"the reply of {service}: not within {PATIENCE_SECONDS:g} s") from None
    timeline.say(f"  {'':<8} the client has its reply after {(time.monotonic() - began) * 1000:.0f} ms: “{reply}”")
    if expected not in reply:
        raise DidNotHappen(f"the reply of {service} is {reply!r}; expected {expected!r} in it")


def falls_asleep(*services: str) -> Callable[[dict[str, Any]], bool]:
    awake = set(services)

    def seen(entry: dict[str, Any]) -> bool:
        if entry["event"] == "transition" and entry["target"] == "ScaledToZero":
            awake.discard(entry["service"])
        return not awake

    return seen


def asleep_in(prometheus: str) -> set[str]:
    """The services that sleep, as Prometheus has it."""
    query = urllib.parse.urlencode({"query": 'zenvoy_service_state{state="ScaledToZero"} == 1'})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=5) as answer:
        return {row["metric"]["service"] for row in json.load(answer)["data"]["result"]}


def seen_by(prometheus: str, timeline: Timeline, *services: str) -> None:
    """Prometheus has scraped that these sleep."""
    while not asleep_in(prometheus).issuperset(services):
        if not timeline.seconds_left:
            raise DidNotHappen(f"Prometheus has seen {' and '.join(services)} asleep")
        time.sleep(0.1)
    timeline.say(f'Prometheus has it too: zenvoy_service_state{{state="ScaledToZero"}} is 1 for {", ".join(services)}.')


def show(timeline: Timeline) -> None:
    prometheus = None
    if shutil.which("prometheus"):
        started = timeline.until("Prometheus is started", lambda entry: entry["event"] == "Prometheus")
        prometheus = str(started["at"])
        timeline.say(f"Prometheus scrapes Envoy every second, and says what is in use: {prometheus}")
    timeline.serving()
    timeline.say("Envoy, the reconciler and the holder run; no process of hello or greeter does.")
    timeline.say(f"$ curl http://{HOST}:10000/")
    connect(timeline, "hello", curl, "hello from process")
    timeline.say("$ a TCP client connects to 127.0.0.1:10001 and sends “zenvoy”")
    connect(timeline, "greeter", greet, "good day, zenvoy")
    timeline.say("Now nobody connects; idleAfter is 4 s.")
    timeline.until("both fell asleep", falls_asleep("hello", "greeter"))
    timeline.say("Both sleep again: their processes are gone.")
    if prometheus:
        seen_by(prometheus, timeline, "hello", "greeter")
    timeline.say("Once more:")
    timeline.say(f"$ curl http://{HOST}:10000/")
    connect(timeline, "hello", curl, "hello from process")


def keep(timeline: Timeline, state_dir: str) -> None:
    timeline.serving()
    zenvoy = f"{ZENVOY.relative_to(Path.cwd()) if ZENVOY.is_relative_to(Path.cwd()) else ZENVOY}"
    print(
        f"""
zenvoy runs; Ctrl-C ends it. In another terminal:

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
    arguments.add_argument("--keep", action="store_true", help="stay up, and say what to type")
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
            timeline.say(f"This did not happen: {error}")
            return 1
        except KeyboardInterrupt:
            if not wanted.keep:
                return 130
        finally:
            process.terminate()
            code = process.wait(10)
        timeline.say(f"zenvoy ended all that it started (exit code {code}).")
        return 0 if code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
