"""The keeper: a process with a second descriptor of every held connection, so that they survive a holder that dies.

A connection stays open while any process has a descriptor of it. The holder sends each held connection to the keeper.
When the holder dies, the next holder receives them all, unread, and continues to hold them. The keeper does not read
from them or write to them. It is a small process: it uses the standard library only. Counterpart:
`control/keeper_client.py`.

The protocol uses a `SOCK_SEQPACKET` Unix socket. The first message of a holder is `A` (adopt: send what is kept) or `F`
(forget what is kept). Then come `K` (keep: inode number and time of each attached descriptor), `D` (drop: inode
numbers) and `P` (ping). The keeper sends `G` (give: times, with descriptors), `E` (end of giving) and `P` (answer to a
ping).
"""

from __future__ import annotations

import array
import contextlib
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

PER_MESSAGE = 64
"""Descriptors in one message; the kernel allows 253."""
MESSAGE_BYTES = 1 + 16 * PER_MESSAGE
KEPT = struct.Struct("=Qd")
INODE = struct.Struct("=Q")
SINCE = struct.Struct("=d")
ORPHAN_SECONDS = 60.0
"""The time that connections are kept without a holder."""
GIVE_SECONDS = 5.0
"""The time that a holder has to receive each message while it adopts."""
_HELP = """\
usage: zenvoy-keeper PATH

Keep held connections open while no holder runs: a holder that dies leaves them to the next one.

  PATH   the Unix socket to listen on, in a directory that this user owns; give the same path to
         zenvoy-tproxy run --keeper

A holder has a minute to come back. SIGTERM ends the keeper, and the connections that only it has.
"""
_ANCILLARY = socket.CMSG_SPACE(PER_MESSAGE * array.array("i").itemsize)
_MESSAGES_PER_STEP = 64


def receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """Return one message and its descriptors, which are the caller's. Raises `OSError`."""
    data, ancillary, _, _ = link.recvmsg(MESSAGE_BYTES, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, list(descriptors)


class Keeper:
    """The kept connections, and the one holder that they belong to."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._kept: dict[int, tuple[int, float]] = {}
        """By inode number, the keeper's descriptor and the time since when the connection is held."""
        self._link: socket.socket | None = None
        self._orphaned_at = time.monotonic()

    def run(self) -> None:
        """Serve holders, one at a time."""
        while True:
            poll = select.poll()
            poll.register(self._link or self._listening, select.POLLIN)
            is_orphaned = self._kept and self._link is None
            left = self._orphaned_at + ORPHAN_SECONDS - time.monotonic()
            poll.poll(max(0.0, left * 1000) if is_orphaned else None)
            self._step()

    def _step(self) -> None:
        """Handle what is ready, without waiting."""
        if self._link is None:
            if self._kept and time.monotonic() >= self._orphaned_at + ORPHAN_SECONDS:
                self._forget()
            self._accept()
        if self._link is not None:
            try:
                for _ in range(_MESSAGES_PER_STEP):
                    self._serve(self._link)
            except BlockingIOError:
                return
            except (OSError, ValueError, struct.error):
                self._link.close()
                self._link, self._orphaned_at = None, time.monotonic()

    def _accept(self) -> None:
        try:
            link, _ = self._listening.accept()
        except OSError:
            return
        _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            link.close()
            return
        link.setblocking(False)
        self._link = link

    def _serve(self, link: socket.socket) -> None:
        """Process one message. Raises `BlockingIOError` if there is none, and other errors if the link is unusable."""
        data, descriptors = receive(link)
        kind, body = data[:1], data[1:]
        if kind == b"K":
            self._keep(body, descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if kind == b"D":
            for (inode,) in INODE.iter_unpack(body):
                if kept := self._kept.pop(inode, None):
                    os.close(kept[0])
        elif kind == b"F":
            self._forget()
        elif kind == b"A":
            self._give(link)
        elif kind == b"P":
            link.send(b"P")
        else:
            raise ValueError("the holder closed the link or uses another protocol")

    def _keep(self, body: bytes, descriptors: list[int]) -> None:
        """Keep the received descriptors: fewer than were sent if this process has reached its limit."""
        for (inode, since), descriptor in zip(KEPT.iter_unpack(body), descriptors, strict=False):
            if before := self._kept.pop(inode, None):
                os.close(before[0])
            self._kept[inode] = (descriptor, since)

    def _give(self, link: socket.socket) -> None:
        link.settimeout(GIVE_SECONDS)
        kept = sorted(self._kept.values(), key=lambda one: one[1])
        for at in range(0, len(kept), PER_MESSAGE):
            part = kept[at : at + PER_MESSAGE]
            data = b"G" + b"".join(SINCE.pack(since) for _, since in part)
            socket.send_fds(link, [data], [fd for fd, _ in part])
        link.send(b"E")
        link.setblocking(False)

    def _forget(self) -> None:
        for descriptor, _ in self._kept.values():
            os.close(descriptor)
        self._kept.clear()


def listen(path: str) -> socket.socket:
    """Return the socket that holders connect to; replaces the file at `path`. Raises `OSError`."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    before = os.umask(0o177)
    try:
        listening.bind(path)
    finally:
        os.umask(before)
    listening.listen()
    return listening


def main() -> None:
    """Run the keeper until SIGTERM. The only argument is the path of the Unix socket."""
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            print(_HELP, end="")
            return
        case [path] if not path.startswith("-"):
            pass
        case _:
            sys.exit("usage: zenvoy-keeper PATH (the Unix socket to listen on)")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        listening = listen(path)
    except OSError as error:
        sys.exit(f"cannot listen on {path}: {error.strerror}; choose a path in a directory that this user owns")
    Keeper(listening).run()


if __name__ == "__main__":
    main()
