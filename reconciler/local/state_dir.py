"""The layout of the state directory, and other names that the processes of `zenvoy up` share.

Sockets are named relative to it, since the path of a Unix socket is at most 107 bytes.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

GRPC_SOCKET = "reconciler.sock"
ADMIN_SOCKET = "envoy.sock"
KEEPER_SOCKET = "keeper.sock"
HOLDER_SOCKET = "holder.sock"
NODE = "local"
"""The node id of the one Envoy."""
SHORTEN_STOP = signal.SIGURG
"""From the supervisor to the reconciler during shutdown: stop waiting. By default, this signal is ignored."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """The state directory of one `zenvoy up`."""

    path: Path

    @property
    def control(self) -> Path:
        return self.path / "control.sock"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def children(self) -> Path:
        return self.path / "children.json"

    @property
    def holder_port(self) -> Path:
        return self.path / "holder-port"

    @property
    def records(self) -> Path:
        return self.path / "records.db"

    def last_good_of(self, file: Path) -> Path:
        """Return the file with the last good content of a services file."""
        return self.path / f"last-good-{blake2b(os.fsencode(file.absolute()), digest_size=6).hexdigest()}.yaml"

    @property
    def bootstrap(self) -> Path:
        return self.path / "bootstrap.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

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
