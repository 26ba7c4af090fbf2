"""What to run for a service: a command and all that belongs to it.

Rule: plain immutable values, no I/O. Made by `reconciler.local.services_file`, run by `launch.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from signal import Signals

PLACEHOLDER = re.compile(r"(?<![${])\{([A-Za-z_][A-Za-z0-9_-]*)\}(?!\})")
"""A name in braces, in a command or in a value of its environment; `port` is the only name that means something."""
_LITERAL = re.compile(r"\{(\{[A-Za-z_][A-Za-z0-9_-]*\})\}")
"""Two braces stand for one, so that `{{port}}` is the text `{port}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One service's command. Durations are seconds."""

    command: tuple[str, ...]
    working_directory: Path
    environment: tuple[tuple[str, str], ...] = ()
    """Variables besides those that zenvoy itself has."""
    port: int | None = None
    """The port that the command listens on; None: a free one is chosen."""
    ready_path: str | None = None
    """What to GET until the answer is 2xx or 3xx; None: a successful dial is enough."""
    ready_command: tuple[str, ...] = ()
    """What to run, in the folder and with the environment of the command, until it ends with 0; empty: nothing."""
    stop_signal: Signals = Signals.SIGTERM
    drain_timeout: float = 30.0
    """How long the command has after `stop_signal` before SIGKILL."""
    addresses: tuple[str, ...] = field(default=(), compare=False)
    """The listener and host names that lead to the service; another service may take them over."""

    @property
    def digest(self) -> str:
        """Differs when a running process would have to be started again; the other settings apply to it as it runs."""
        parts = (self.command, str(self.working_directory), self.environment, self.port)
        return sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def is_ready_by_dial(self) -> bool:
        """Whether a successful dial is all that it takes to be ready."""
        return self.ready_path is None and not self.ready_command

    def arguments(self, port: int) -> list[str]:
        """The command with its port filled in."""
        return [filled(part, port) for part in self.command]

    def variables(self, port: int) -> dict[str, str]:
        """Its own environment with the port filled in."""
        return {name: filled(value, port) for name, value in self.environment}


def filled(text: str, port: int) -> str:
    """`text` with the port in the place of every `{port}`; `${port}` is a shell's variable and stays."""
    ported = PLACEHOLDER.sub(lambda found: str(port) if found[1] == "port" else found[0], text)
    return _LITERAL.sub(r"\1", ported)
