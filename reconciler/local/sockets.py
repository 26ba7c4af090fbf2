"""Listening sockets: addresses that are available, and the processes that use the others."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from reconciler.core.address import Address, split_address
from reconciler.local.listening import command_of, listeners, listening_sockets
from reconciler.local.processes.procfs import CHILD_MARK

BACKLOG = 65_535
"""The kernel takes net.core.somaxconn when that is less."""


def parsed(text: str) -> str:
    """Return `ip:port` from user input. Raises `ValueError` with the remedy."""
    host, _, port = text.rpartition(":")
    wrong = f"{text!r} is not ip:port; use for example 127.0.0.1:18080 or [::1]:18080"
    try:
        ip = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError(wrong) from None
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed != (ip.version == 6) or not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(wrong)
    return text


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach an `ip:port`."""
    return ip_address(split_address(address)[0]).is_loopback


def taken(metrics: str | None, holder_metrics: str | None, grpc: str | None) -> dict[str, Address]:
    """Return what these options of `zenvoy up` listen on, by option. Raises `ValueError`."""
    options = {"--metrics": metrics, "--holder-metrics": holder_metrics, "--grpc": grpc}
    return {option: Address.of(*split_address(address)) for option, address in options.items() if address}


def unavailable(address: str) -> str | None:
    """Return why `ip:port` is unavailable, with the process that uses it if known; None if it is available."""
    error = _error_of_listening(address)
    return None if error is None else f"{address}: {error.strerror}{_user(split_address(address)[1])}"


def in_use(address: str) -> str | None:
    """Return the reason why `ip:port` is in use, with the process that uses it; None also for other errors."""
    error = _error_of_listening(address)
    if error is None or error.errno != errno.EADDRINUSE:
        return None
    return f"{address}: {error.strerror}{_user(split_address(address)[1])}"


def _error_of_listening(address: str) -> OSError | None:
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def listened_on() -> frozenset[int]:
    """Return all TCP ports that are listened on."""
    return frozenset(one.port for one in listening_sockets())


def _user(port: int) -> str:
    """Return the process that uses a port, to append to an error."""
    command = command_of(port)
    owners = [owner for pid in listeners(port) if (owner := _owner(pid))]
    return f"; it is used by {command}{owners[0] if owners else ''}" if command else ""


def _owner(pid: int) -> str:
    """Name the `zenvoy up` that a process belongs to, if it does."""
    state_dir = _state_dir(pid)
    return f" (of the `zenvoy up` with the state directory {state_dir})" if state_dir else ""


def _state_dir(pid: int) -> str | None:
    """Return the state directory of the `zenvoy up` that a process belongs to, if it does."""
    try:
        environment = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
        state_dir = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
    return state_dir if f"\0{CHILD_MARK}=".encode() in environment else None


def state_dirs_listening(address: str) -> list[Path]:
    """Return the state directories of each `zenvoy up` that listens on the port of `ip:port`."""
    found = {_state_dir(pid) for pid in listeners(split_address(address)[1])}
    return [Path(state_dir) for state_dir in sorted(filter(None, found))]


def listening_socket(preferred: int = 0) -> socket.socket:
    """Return a socket that listens on all IPv4 addresses, at the port `preferred` if it is free. Raises `OSError`."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("0.0.0.0", preferred))
    except OSError:
        listening.bind(("0.0.0.0", 0))
    listening.listen(BACKLOG)
    return listening
