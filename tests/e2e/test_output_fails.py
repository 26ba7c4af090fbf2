"""`zenvoy up` whose own output fails: it keeps serving, and ends in order."""

from __future__ import annotations

import fcntl
import os
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import SLOW_TO_SLEEP, ZENVOY, Zenvoy, quick, request, until

WEB = {"name": "web", "command": quick("http")}
Fail = Callable[[], None]


@contextmanager
def terminal() -> Iterator[tuple[int, Fail]]:
    """Provide a terminal that closes, as when an SSH session drops: SIGHUP, and EIO at each write."""
    ours, theirs = os.openpty()
    yield theirs, lambda: (os.close(theirs), os.close(ours), None)[-1]


@contextmanager
def pipe_without_reader() -> Iterator[tuple[int, Fail]]:
    """Provide a pipe whose reader ends: EPIPE."""
    reading, writing = os.pipe()
    yield writing, lambda: os.close(reading)
    os.close(writing)


@contextmanager
def pipe_that_blocks() -> Iterator[tuple[int, Fail]]:
    """Provide a pipe whose reader stopped reading when it was full."""
    reading, writing = os.pipe()

    def fill() -> None:
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"x" * 512)
        except BlockingIOError:
            os.set_blocking(writing, True)

    yield writing, fill
    os.close(reading)
    os.close(writing)


@contextmanager
def full_disk() -> Iterator[tuple[int, Fail]]:
    """Provide a file on a full disk: ENOSPC."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor, lambda: None
    os.close(descriptor)


def start(z: Zenvoy, output: int, *more: str, **environment: str) -> None:
    """Start `up` with that as its output, and as its controlling terminal where it is one; return once it serves."""

    def take_terminal() -> None:
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY)

    z.process = subprocess.Popen(
        [str(ZENVOY), "up", str(z.file), "--state-dir", str(z.state_dir), *more],
        stdin=output if os.isatty(output) else subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=z.directory,
        env={**os.environ, **environment},
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    z.wait_state("web", "ScaledToZero")
    until(
        "Envoy and the holder are connected",
        lambda: (both := z.ask("GET", "/v1/services"))["envoys"] and both["holders"],
    )
    until("Envoy listens", lambda: _answers(z))


def _answers(z: Zenvoy) -> bool:
    try:
        return request(z.http_port, "nothing").status == 404
    except OSError:
        return False


@pytest.mark.parametrize("kind", [terminal, pipe_without_reader, pipe_that_blocks, full_disk])
def test_up_serves_and_ends_while_its_output_fails(
    zenvoy: Start, kind: Callable[[], AbstractContextManager[tuple[int, Fail]]]
) -> None:
    z = zenvoy(WEB, defaults=SLOW_TO_SLEEP, start=False)
    with kind() as (output, fail):
        start(z, output)
        pids = z.pids()
        fail()
        assert request(z.http_port, "web").status == 200
        z.sleep("web")
        new = z.kill("reconciler")
        until("another reconciler runs", lambda: z.pids().get("reconciler", new) != new)
        z.wait_state("web", "ScaledToZero")
        assert request(z.http_port, "web").status == 200
        assert {name: z.pids()[name] for name in ("up", "envoy", "holder")} == {
            name: pids[name] for name in ("up", "envoy", "holder")
        }
        assert z.stop() == 0
        assert not z.leftovers()


def test_up_reports_its_error_with_a_failing_output(zenvoy: Start) -> None:
    z = zenvoy(WEB, start=False)
    command = [str(ZENVOY), "up", str(z.file), "--state-dir", str(z.state_dir), "--envoy", "/dev/null"]
    with full_disk() as (output, _):
        done = subprocess.run(command, stdout=output, stderr=output, timeout=60, check=False)
    assert done.returncode == 1
    assert not z.leftovers()


def test_log_file_unopenable_stops_nothing(zenvoy: Start) -> None:
    z = zenvoy(WEB, defaults=SLOW_TO_SLEEP, start=False)
    for name in ("web", "envoy", "holder", "reconciler"):
        (z.state_dir / "logs" / f"{name}.log").mkdir(parents=True)
    z.state_dir.chmod(0o700)
    z.start()
    assert request(z.http_port, "web").status == 200
    assert z.stop() == 0


def test_output_in_another_encoding_is_ascii(zenvoy: Start) -> None:
    encoding = {"PYTHONIOENCODING": "iso-8859-1"}
    z = zenvoy(WEB, defaults=SLOW_TO_SLEEP, start=False, environment=encoding)
    with z.log_path.open("wb") as log:
        start(z, log.fileno(), **encoding)
    assert request(z.http_port, "web").status == 200
    z.woken("web")
    done = z.cli("explain", "web")
    assert done.returncode == 0, done.stderr
    assert "Waking -> Active" in " ".join(done.stdout.split())
    assert z.stop() == 0
    text = z.log_path.read_bytes()
    assert b"Traceback" not in text
    assert b"Waking       -> Active" in text


def test_status_on_a_full_disk_reports_why(zenvoy: Start) -> None:
    z = zenvoy(WEB, defaults=SLOW_TO_SLEEP)
    with full_disk() as (output, _):
        command = [str(ZENVOY), "status", "--state-dir", str(z.state_dir)]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    remedy = "free disk space, or write to another file"
    assert done.stderr == f"zenvoy: cannot write the output: No space left on device; {remedy}\n"
