"""The examples work as documented: the demo, and each services file with the commands in its comments."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from reconciler.core.spec import Spec
from reconciler.core.text import parse_duration
from tests.e2e.harness import PATIENCE_SECONDS, ZENVOY, until
from tests.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWERS = {
    "demo": [r"hello from process \d+", "good day, zenvoy"],
    "postgres": [r"\d{4}-\d\d-\d\d \d\d:\d\d"],
    "redis": [r"^1$"],
}
"""The answers to the commands in the comments of each example, in order."""
NEEDS = {"demo": [pytest.mark.curl], "postgres": [pytest.mark.postgres], "redis": [pytest.mark.redis]}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Provide a folder that every user can reach, unlike pytest's own: PostgreSQL does not run as root."""
    made = Path(tempfile.mkdtemp(prefix="zenvoy-example-", dir="/tmp"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def copied(name: str, to: Path) -> Path:
    """Return an example at free ports, wherever it names those that it listens on."""
    at = to / name
    shutil.copytree(EXAMPLES / name, at, ignore=shutil.ignore_patterns("data", "__pycache__", ".zenvoy", "*.rdb"))
    listens = re.findall(r'"127\.0\.0\.1:(\d+)"', (at / "services.yaml").read_text())
    ports = {port: str(free_port()) for port in listens}
    for path in [at / "services.yaml", *at.glob("run.py")]:
        text = path.read_text()
        path.write_text(re.sub("|".join(rf"\b{port}\b" for port in ports), lambda found: ports[found[0]], text))
    return at


class Program:
    """A command in a session of its own, as a terminal would have it, with its output in a file."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self._output = directory / "output"
        self._directory = directory
        with self._output.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=directory, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )

    @property
    def said(self) -> str:
        return self._output.read_text()

    def says(self, text: str) -> None:
        until(f"it says {text}", lambda: text in self.said or self.process.poll() is not None)
        assert text in self.said, self.said

    def stop(self, number: int) -> int:
        """Signal its session, and return its exit code."""
        os.killpg(self.process.pid, number)
        return self.process.wait(PATIENCE_SECONDS)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE_SECONDS)


def test_example_for_compose_is_valid() -> None:
    file = EXAMPLES / "compose" / "zenvoy" / "services.yaml"
    done = subprocess.run([str(ZENVOY), "check", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    service = yaml.safe_load((EXAMPLES / "compose" / "compose.yaml").read_text())["services"]["zenvoy"]
    assert service["command"][1] == f"/etc/zenvoy/{file.name}"
    published = {port.rpartition(":")[2] for port in service["ports"]}
    assert published == {yaml.safe_load(file.read_text())["listen"]["http"].rpartition(":")[2]}


def test_example_for_systemd_waits_for_readiness_and_drains() -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(EXAMPLES / "systemd" / "zenvoy.service")
    service = unit["Service"]
    assert (service["Type"], service["KillMode"]) == ("notify", "mixed")
    stop = parse_duration(service["TimeoutStopSec"].removesuffix("in"))
    assert stop is not None and stop > 2 * Spec(name="").drain_timeout


def demo(at: Path) -> Program:
    return Program([sys.executable, str(at / "run.py")], at)


@pytest.mark.parametrize(
    "name",
    [pytest.param(file.parent.name, marks=NEEDS[file.parent.name]) for file in EXAMPLES.glob("*/services.yaml")],
)
def test_example_commands_give_the_documented_answers(folder: Path, name: str) -> None:
    at = copied(name, folder)
    comments = re.findall(r"^#   (.*)$", (at / "services.yaml").read_text(), re.MULTILINE)
    assert comments[0] == f"zenvoy up examples/{name}/services.yaml"
    with Program([str(ZENVOY), "up", "services.yaml", "--log", "json"], at) as up:
        up.says('"serving"')
        for typed, answer in zip(comments[1:], ANSWERS[name], strict=True):
            done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr + up.said
            assert re.search(answer, done.stdout, re.MULTILINE)
        assert up.stop(signal.SIGTERM) == 0


def test_demo_shows_sleep_and_wake(folder: Path) -> None:
    with demo(copied("demo", folder)) as program:
        assert program.process.wait(300) == 0, program.said
        assert program.said.count("the client has its answer") == 3
        assert "Both services sleep again" in program.said


def test_demo_without_a_wake_fails(folder: Path) -> None:
    at = copied("demo", folder)
    (at / "hello_http.py").write_text("raise SystemExit('no such file')")
    file = at / "services.yaml"
    file.write_text(file.read_text().replace("holdTimeout: 20s", "holdTimeout: 1s"))
    with demo(at) as program:
        assert program.process.wait(PATIENCE_SECONDS) == 1
        assert "This did not happen: the answer of hello" in program.said


def test_demo_interrupted_fails(folder: Path) -> None:
    with demo(copied("demo", folder)) as program:
        program.says("hello and greeter are not")
        assert program.stop(signal.SIGINT) == 130
