"""A Kubernetes for the tests: started by `cluster`, or your own.

Everything that is started here is stopped here, and by `cluster` itself once this process is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_ports

TOOL = Path(__file__).with_name("cluster")
TOOLING_SECONDS = 90 * 60
"""Building Kubernetes on a slow machine, once."""
DOWN_SECONDS = 600
APISERVER_SECONDS = 400
"""Longer than `cluster` waits for it, so that its explanation is seen."""
OUTPUT_LENGTH = 40_000
"""Characters of a failed program's output: `cluster` prints the end of each log."""


class ToolFailed(Exception):
    """A program failed; the end of its output."""


@dataclass(frozen=True)
class Cluster:
    """A cluster. `settings` are the environment of programs that work on it (kubectl, helm, `cluster`)."""

    kubeconfig: Path
    settings: Mapping[str, str]
    folder: Path | None = None
    """Its state, logs and process ids; None when `cluster` did not start it."""

    def run(self, *command: str | Path, given: str | None = None, timeout: float = 300) -> str:
        """Run a program and return its standard output. Raises `ToolFailed`."""
        return run(*command, settings=self.settings, given=given, timeout=timeout)

    def kubectl(self, *arguments: str, given: str | None = None, timeout: float = 300) -> str:
        return self.run("kubectl", *arguments, given=given, timeout=timeout)

    def stop_apiserver(self) -> None:
        """Stop the API server like a crash: connections are cut, and the port is closed."""
        self.run(TOOL, "apiserver", "stop")

    def start_apiserver(self) -> None:
        """Start the API server again with its data, and wait until it serves. A frozen one is killed."""
        self.run(TOOL, "apiserver", "start", timeout=APISERVER_SECONDS)

    def freeze(self, program: str) -> None:
        """Freeze `apiserver`, `etcd`, `controller-manager` or another part: its connections stay open and silent."""
        os.kill(self.process_id(program), signal.SIGSTOP)

    def thaw(self, program: str) -> None:
        os.kill(self.process_id(program), signal.SIGCONT)

    def process_id(self, program: str) -> int:
        assert self.folder, "only of a cluster that the tests started"
        return int((self.folder / f"{program}.pid").read_text())

    def down(self) -> None:
        self.run(TOOL, "down", timeout=DOWN_SECONDS)

    def logs(self) -> str:
        if self.folder is None:
            return ""
        return "\n".join(f"{log.stem}: {_end_of(log)}" for log in sorted(self.folder.glob("*.log")))


def start(folder: Path, *options: str) -> Cluster:
    """Run `cluster up` with ports of its own; it stops if this process is killed. Raises `ToolFailed`.

    Most tests need the cluster: a failure is printed, and it is started once more.
    """
    try:
        return _start(folder, *options)
    except ToolFailed as error:
        print(f"starting the cluster again, because it failed: {error}", file=sys.stderr)
        return _start(folder, *options)


def _start(folder: Path, *options: str) -> Cluster:
    settings = {"CLUSTER_DIR": str(folder), "CLUSTER_PORT": str(free_ports(3, host=""))}
    try:
        run(TOOL, "up", *options, "--while", str(os.getpid()), settings=settings, timeout=TOOLING_SECONDS)
    except ToolFailed:
        run(TOOL, "down", settings=settings, timeout=DOWN_SECONDS)
        raise
    return Cluster(folder / "kubeconfig", {**settings, **_exports(settings)}, folder)


def own() -> Cluster | None:
    """Return your own cluster, if `ZENVOY_TEST_CLUSTER=own` allows the tests to use it.

    One that `cluster up` made is known by its settings (`cluster env`): its processes may be stopped too.
    """
    if os.environ.get("ZENVOY_TEST_CLUSTER") != "own":
        return None
    kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    folder = os.environ.get("CLUSTER_DIR")
    return Cluster(kubeconfig, {"KUBECONFIG": str(kubeconfig)}, Path(folder) if folder else None)


def run(
    *command: str | Path, settings: Mapping[str, str] | None = None, given: str | None = None, timeout: float = 300
) -> str:
    """Run a program and return its standard output. Raises `ToolFailed`."""
    words = [str(word) for word in command]
    environment = {**os.environ, **(settings or {})}
    try:
        done = subprocess.run(words, input=given, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        output = (error.stderr or b"").decode(errors="replace")[-OUTPUT_LENGTH:]
        raise ToolFailed(f"{' '.join(words)}: not within {timeout:g} s\n{output}") from None
    if done.returncode:
        raise ToolFailed(f"{' '.join(words)}: {done.stderr[-OUTPUT_LENGTH:] or done.stdout[-OUTPUT_LENGTH:]}")
    return done.stdout


def _exports(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `export A=b C=d:$C` as the shell reads them."""
    said = run("sh", "-c", f'eval "$({TOOL} env)"; echo "$KUBECONFIG"; echo "$PATH"', settings=settings)
    kubeconfig, path = said.splitlines()
    return {"KUBECONFIG": kubeconfig, "PATH": path}


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
