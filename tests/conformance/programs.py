"""The programs of the suites: built from pinned Go modules once, and run directly where a test compares."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.e2e.harness import LOCAL, until
from tests.ports import free_port

MODULE = Path(__file__).parent / "programs"
PACKAGES = {
    "grpc-client": "google.golang.org/grpc/interop/client",
    "grpc-server": "google.golang.org/grpc/interop/server",
    "h2server": "./h2server",
    "h2spec": "github.com/summerwind/h2spec/cmd/h2spec",
    "httpclient": "./httpclient",
    "wsecho": "./wsecho",
}
BUILD_SECONDS = 900
"""On a slow machine, with nothing in Go's cache."""


def built(name: str) -> str:
    """Return the path of a program, after building it if this version was not built before."""
    program = _folder() / name
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            new = program.with_suffix(".new")
            command = ["go", "-C", str(MODULE), "build", "-trimpath", "-o", str(new), PACKAGES[name]]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
                check=False,
            )
            assert done.returncode == 0, done.stderr
            new.replace(program)
    return str(program)


def run(*command: str, timeout: float = 120, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of a suite to its end, with standard output and errors as one text."""
    return subprocess.run(
        command,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


@contextmanager
def listening(command: Sequence[str], **options: Any) -> Iterator[int]:
    """Run a server without zenvoy, with `{port}` replaced, and yield its port once it accepts connections."""
    port = free_port()
    process = subprocess.Popen([word.replace("{port}", str(port)) for word in command], **options)

    def accepts() -> bool:
        assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
        with suppress(OSError), socket.create_connection((LOCAL, port), 1):
            return True
        return False

    try:
        until(f"{command[0]} listens", accepts)
        yield port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def _folder() -> Path:
    """Return the cache of this version of the programs."""
    sources = sorted(path for path in MODULE.rglob("*") if path.suffix in (".go", ".mod", ".sum"))
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "zenvoy-conformance" / version
