"""How the CLI talks to a running `zenvoy up`: HTTP at the control socket in its state directory.

By the standard library, since it starts ten times as fast as an asyncio client, and a person waits for each command.
"""

from __future__ import annotations

import json
import os
import socket
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 10.0


class NotRunning(Exception):
    """No `zenvoy up` answers at this state directory."""


class Rejected(Exception):
    """The reconciler said no; its words."""


class Broken(Exception):
    """It answers, but not as it should; what it says."""


class _Control(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("zenvoy", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """By way of an open directory: the path of a Unix socket is at most 107 bytes, ours may be longer."""
        directory = os.open(self._path.parent, os.O_PATH)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(TIMEOUT_SECONDS)
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


def ask(control: Path, method: str, path: str) -> Any:
    """The JSON answer. Raises `NotRunning`, `Rejected` and `Broken`."""
    connection = _Control(control)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        said = response.read()
    except (OSError, HTTPException) as error:
        raise NotRunning(
            f"no zenvoy runs with the state directory {control.parent} ({error}); start one with `zenvoy up FILE`, "
            "or name its directory with --state-dir or ZENVOY_STATE_DIR"
        ) from None
    finally:
        connection.close()
    try:
        answer = json.loads(said)
        if response.status >= 400:
            raise Rejected(answer["error"])
    except (ValueError, KeyError, TypeError):
        text = said.decode(errors="replace").strip().partition("\n")[0][:200]
        asked = f"{method} {path}: {response.status} {response.reason}"
        raise Broken(f"the reconciler failed ({asked}: {text}); the log of `zenvoy up` says why") from None
    return answer
