"""A client of a running `zenvoy up`: HTTP over the control socket in its state directory.

It uses the standard library, which loads ten times as fast as an asyncio client.
"""

from __future__ import annotations

import json
import os
import socket
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from reconciler.cli.output import ExitCode

TIMEOUT_SECONDS = 10.0
ANSWER_BYTES_MAX = 64_000_000
"""The status of 10,000 services needs a fifth of it."""
ANSWER_SECONDS_MAX = 60.0
CHUNK_BYTES = 65_536
LOCKS = Path("/proc/locks")
"""https://man7.org/linux/man-pages/man5/proc_locks.5.html"""


class ControlError(Exception):
    """A request whose answer is not one of a reconciler, or reports its failure; commands exit with its code."""

    code = ExitCode.FAILED


class NotRunning(ControlError):
    """No reconciler answers at this state directory."""

    code = ExitCode.NOT_RUNNING


class RequestRejected(ControlError):
    """The reconciler rejected the request; the message is its own."""

    code = ExitCode.NO_SUCH_SERVICE


class _Control(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("zenvoy", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect by way of an open directory: the path of a Unix socket has at most 107 bytes, ours may be longer."""
        directory = os.open(self._path.parent, os.O_PATH)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(TIMEOUT_SECONDS)
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


def ask(control: Path, method: str, path: str) -> dict[str, Any]:
    """Send a request and return the JSON of the answer. Raises `ControlError`."""
    connection = _Control(control)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = _read_body(response)
    except (OSError, HTTPException) as error:
        raise NotRunning(_no_answer(control.parent, error)) from None
    finally:
        connection.close()
    request = f"{method} {path}: {response.status} {response.reason}"
    if body is None:
        raise ControlError(f"the answer to {request} is too long; check that {control} belongs to zenvoy")
    try:
        answer: dict[str, Any] = json.loads(body)
        if response.status >= 400:
            raise RequestRejected(answer["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body[:CHUNK_BYTES].decode(errors="replace").strip().partition("\n")[0][:200]
        raise ControlError(f"the reconciler failed ({request}: {text}); see the log of `zenvoy up`") from None
    return answer


def _read_body(response: HTTPResponse) -> bytes | None:
    """Return the body, or None if it is too long. Raises `TimeoutError` if it takes too long."""
    deadline, body = time.monotonic() + ANSWER_SECONDS_MAX, bytearray()
    while chunk := response.read1(CHUNK_BYTES):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            return None
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    return bytes(body)


def _no_answer(state_dir: Path, error: Exception) -> str:
    if process := lock_holder(state_dir / "lock"):
        return (
            f"`zenvoy up` (process {process}) runs with the state directory {state_dir}, but its reconciler does not "
            f"answer ({error}); it may be restarting, so try again in a few seconds, or see the log of `zenvoy up`"
        )
    return (
        f"zenvoy is not running with the state directory {state_dir} ({error}); start it with `zenvoy up FILE`, or "
        "name its directory with --state-dir or ZENVOY_STATE_DIR"
    )


def lock_holder(lock: Path) -> int | None:
    """Return the id of the process that has locked a file, which contains it; None if the file is not locked.

    The kernel's list is read, because an attempt to lock could make a `zenvoy up` fail that starts at this moment.
    """
    try:
        inode, text = lock.stat().st_ino, lock.read_bytes()[:20].strip()
        locks = LOCKS.read_text().splitlines()
    except OSError:
        return None
    is_locked = any(
        fields[1] == "FLOCK" and fields[5].endswith(f":{inode}") for line in locks if (fields := line.split())
    )
    return int(text) if is_locked and text.isdigit() else None
