"""The program of a service: a command and its settings. Immutable values, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from signal import Signals

PLACEHOLDER = re.compile(r"(?<![${])\{([A-Za-z_][A-Za-z0-9_-]*)\}(?!\})")
"""A placeholder in a command or an environment value; `port` is the only one that is replaced."""
_LITERAL = re.compile(r"\{(\{[A-Za-z_][A-Za-z0-9_-]*\})\}")
"""Double braces are an escape: `{{port}}` is the text `{port}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The command of one service. Durations are in seconds."""

    command: tuple[str, ...]
    working_directory: Path
    environment: tuple[tuple[str, str], ...] = ()
    """Variables in addition to those of zenvoy."""
    port: int | None = None
    """The port that the command listens on; None: a free one is chosen."""
    ready_path: str | None = None
    """The path of the HTTP readiness probe, which succeeds with 2xx or 3xx; None: no such probe."""
    ready_command: tuple[str, ...] = ()
    """The command of the readiness probe, which succeeds with exit code 0; empty: no such probe."""
    busy_path: str | None = None
    """The path of the HTTP busy check; None: no such check."""
    busy_command: tuple[str, ...] = ()
    """The command of the busy check; empty: no such check."""
    user: str | None = None
    """The name or number of the account that the program and its commands run as; None: that of zenvoy."""
    stop_signal: Signals = Signals.SIGTERM
    drain_timeout: float = 30.0
    """Time between `stop_signal` and SIGKILL."""
    slow_after: float = field(default=30.0, compare=False)
    """Time after which a start is reported as slow."""
    addresses: tuple[str, ...] = field(default=(), compare=False)
    """The listener and host names of the service; another service may take them over."""

    @property
    def digest(self) -> str:
        """A digest of the settings that need a restart to take effect."""
        parts = (self.command, str(self.working_directory), self.environment, self.port, self.user)
        return sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def is_ready_by_dial(self) -> bool:
        """True if the program is ready once a dial succeeds."""
        return self.ready_path is None and not self.ready_command

    @property
    def has_busy_check(self) -> bool:
        """True if it can be asked whether it works without a client."""
        return self.busy_path is not None or bool(self.busy_command)


def filled(text: str, port: int) -> str:
    """Return the text with each `{port}` replaced; `${port}` is a shell variable and is kept."""
    ported = PLACEHOLDER.sub(lambda found: str(port) if found[1] == "port" else found[0], text)
    return _LITERAL.sub(r"\1", ported)
