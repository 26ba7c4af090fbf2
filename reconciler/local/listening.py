"""Sockets of this machine that listen, and the processes that have them.

Sources: https://docs.kernel.org/networking/proc_net_tcp.html, unix(7)
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.core.address import join_address

LISTEN = "0A"
_ACCEPTS = 0x10000
"""The flag of a Unix socket that listens."""
_TABLES = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """One TCP socket that listens."""

    host: str
    port: int
    inode: str


def listening_sockets() -> list[ListeningSocket]:
    """Return all sockets that listen."""
    found = []
    for table, family in _TABLES.items():
        for row in _rows(table):
            if row[3] == LISTEN:
                host, _, port = row[1].rpartition(":")
                found.append(ListeningSocket(_host(host, family), int(port, 16), row[9]))
    return found


def listeners(port: int) -> Iterator[int]:
    """Yield the pids of processes that listen on a port, except those whose sockets this user cannot see."""
    inodes = {one.inode for one in listening_sockets() if one.port == port}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and inodes & _sockets(process):
            yield int(process.name)


def sockets_of(pids: Iterable[int]) -> list[ListeningSocket]:
    """Return the sockets on which one of these processes listens, by port."""
    inodes = {inode for pid in pids for inode in _sockets(Path(f"/proc/{pid}"))}
    return sorted((one for one in listening_sockets() if one.inode in inodes), key=lambda one: (one.port, one.host))


def other_sockets_of(pids: Iterable[int]) -> list[str]:
    """Return the Unix sockets on which one of these processes listens, and its UDP sockets, in words for people."""
    inodes = {inode for pid in pids for inode in _sockets(Path(f"/proc/{pid}"))}
    unix = [row for row in _rows("unix") if len(row) > 7 and int(row[3], 16) & _ACCEPTS]
    found = {f"the Unix socket {' '.join(row[7:])}" for row in unix if row[6] in inodes}
    for table, family in (("udp", socket.AF_INET), ("udp6", socket.AF_INET6)):
        for row in _rows(table):
            if row[9] in inodes:
                host, _, port = row[1].rpartition(":")
                found.add(f"UDP {join_address(_host(host, family), int(port, 16))}")
    return sorted(found)


def command_of(port: int) -> str | None:
    """Return `process 7: python3 serve.py` for a process that listens on a port, if this user can see it."""
    for pid in listeners(port):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        return f"process {pid}: {' '.join(command.split())[:120]}"
    return None


def _rows(table: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    except OSError:
        return []


def _host(text: str, family: socket.AddressFamily) -> str:
    """Return an address that the kernel writes as 32-bit words in its own byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return socket.inet_ntop(family, b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _sockets(process: Path) -> set[str]:
    """Return the inodes of the sockets of a process; empty for a process of another user."""
    found: set[str] = set()
    try:
        entries = os.listdir(process / "fd")
    except OSError:
        return found
    for entry in entries:
        with suppress(OSError):  # it has just been closed
            found.add(os.readlink(process / "fd" / entry))
    return {link[8:-1] for link in found if link.startswith("socket:[")}
