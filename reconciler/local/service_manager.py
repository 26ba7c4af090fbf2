"""Notifications to the service manager that started this process, such as systemd. Source: sd_notify(3)."""

from __future__ import annotations

import os
import socket

import structlog

log = structlog.get_logger()

VARIABLE = "NOTIFY_SOCKET"
READY, STOPPING = "READY=1", "STOPPING=1"


class ServiceManager:
    """The service manager at a Unix datagram socket, or none."""

    def __init__(self, address: str | None) -> None:
        """`address` is a path, or a name after `@` in the abstract namespace; None: there is no service manager."""
        self._address = address

    @classmethod
    def from_environment(cls) -> ServiceManager:
        """Return the service manager of this process, and remove it from the environment of child processes."""
        return cls(os.environ.pop(VARIABLE, None) or None)

    @property
    def is_present(self) -> bool:
        return self._address is not None

    def notify(self, *states: str) -> None:
        """Send states such as `READY=1`, if there is a service manager."""
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.sendto("\n".join(states).encode(), address)
        except OSError as error:
            log.warning("failed to notify the service manager", states=states, socket=self._address, error=str(error))


def status(text: str) -> str:
    """Return the state that `systemctl status` shows, in one line."""
    return f"STATUS={' '.join(text.split())}"
