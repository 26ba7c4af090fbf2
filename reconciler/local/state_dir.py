"""The layout of the state directory, and other names that the processes of `zenvoy up` share.

Sockets are named relative to it, since the path of a Unix socket is at most 107 bytes.
"""

from __future__ import annotations

import os
import signal
from hashlib import blake2b
from pathlib import Path

GRPC_SOCKET = "reconciler.sock"
ADMIN_SOCKET = "envoy.sock"
KEEPER_SOCKET = "keeper.sock"
HOLDER_SOCKET = "holder.sock"
NODE = "local"
"""The node id of the one Envoy."""
CHILD_MARK = "ZENVOY_CHILD"
"""The environment variable of child processes of `zenvoy up`: `<state directory>/<name>`."""
SHORTEN_STOP = signal.SIGURG
"""From the supervisor to the reconciler during shutdown: stop waiting. By default, this signal is ignored."""


class StateDir:
    """The state directory of one `zenvoy up`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.control = path / "control.sock"
        self.lock = path / "lock"
        self.holder_port = path / "holder-port"
        self.records = path / "records.db"
        self.bootstrap = path / "bootstrap.json"
        self.logs = path / "logs"

    def last_good_of(self, file: Path) -> Path:
        """Return the file with the last good content of a services file."""
        return self.path / f"last-good-{blake2b(os.fsencode(file.absolute()), digest_size=6).hexdigest()}.yaml"

    def log(self, service: str) -> Path:
        """Return the log file of a service."""
        return self.logs / f"{service}.log"

    def process_log(self, process: str) -> Path:
        """Return the log file of a process of `zenvoy up`. No service has this file, since names have no dots."""
        return self.logs / f"zenvoy.{process}.log"

    def make(self) -> None:
        """Create the directory. Raises `OSError`, in particular `NotPrivate` if another user could change it."""
        from reconciler.local import private_files  # the commands of the CLI do not need it

        for directory in (self.path, self.logs):
            private_files.make_directory(directory)
