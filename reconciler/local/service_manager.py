"""Notifications to the service manager that started this process, such as systemd. Source: sd_notify(3)."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

VARIABLE = "NOTIFY_SOCKET"
READY, STOPPING = "READY=1", "STOPPING=1"


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """The service manager at a Unix datagram socket, or none."""

    address: str | None
    """A path, or a name after `@` in the abstract namespace; None: there is no service manager."""

    @classmethod
    def from_environment(cls) -> ServiceManager:
        """Return the service manager of this process, and remove it from the environment of child processes."""
        return cls(os.environ.pop(VARIABLE, None) or None)

    def notify(self, *states: str) -> None:
        """Send states such as `READY=1`, if there is a service manager."""
        if self.address is None:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.sendto("\n".join(states).encode(), address)
        except OSError as error:
            log.warning("failed to notify the service manager", states=states, socket=self.address, error=str(error))


def status(text: str) -> str:
    """Return the state that `systemctl status` shows, in one line."""
    return f"STATUS={' '.join(text.split())}"
