"""One direction of a relayed connection: from its source to its sink, in order, in bounded memory.

A flow always waits for exactly one thing (`waits`): bytes from its source, room in its sink, its turn (it has had its
share of a wake-up), the reads of others (see below), or nothing any more. Both sockets are registered edge-triggered,
once, so that waiting costs no system call; the price is the rule that a flow goes back to waiting for its source only
after it has seen the source empty, and for its sink only after it has seen the sink full.

Small messages are read and written: two system calls a message. All that are ready are read before the first is
written, so that whoever is woken by one finds the others there too. A read that fills the whole buffer makes the flow
*bulk*: it is then moved by splice(2) through a pipe, without a copy, until too little comes at a time; one that has
been bulk for long is patient (`patience.py`).
"""

from __future__ import annotations

import os
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP

from tproxy.relay.owner import Owner
from tproxy.relay.patience import Patience
from tproxy.relay.pipes import Pipe

INTEREST = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET
UNUSUAL = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI

SOURCE, SINK, TURN, READS, NOTHING, SOURCE_ENDED, SOURCE_FAILED, SINK_FAILED = range(8)

COPY_SIZE = 1 << 16
SMALL = 1 << 12
"""What is longer is written at once: nobody would be woken twice for it, and it would take memory."""
SPLICE_SIZE = 1 << 20
SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
"""Without SPLICE_F_MORE: it would hold back the last bytes (as MSG_MORE does), and which are the last is not known."""
BULK_MIN = 1 << 15
"""A wake-up that moved fewer bytes than this ends bulk."""
LONG_BULK = 1 << 23
"""Bytes moved in bulk after which a flow is patient (`patience.py`)."""
COPY_ROUNDS = 8
SPLICE_SHARE = 4 << 20
"""Buffers, and bytes, that a flow may move before others have their turn."""


class Flow:
    """Bytes from `source` to `sink`; `twin` is the other direction, between the same two sockets."""

    __slots__ = (
        "broken",
        "bulk",
        "bulk_from",
        "moved",
        "owner",
        "patience",
        "pending",
        "pipe",
        "sink",
        "source",
        "twin",
        "waits",
    )

    twin: Flow

    def __init__(self, owner: Owner, source: int, sink: int) -> None:
        self.owner = owner
        self.source = source
        self.sink = sink
        self.waits = SOURCE
        self.moved = 0
        self.pending = b""
        self.pipe: Pipe | None = None
        self.bulk = False
        self.bulk_from = 0
        self.patience: Patience | None = None
        self.broken = False

    def on_events(self, events: int) -> None:
        """The socket that is this flow's source, and its twin's sink, has something to say."""
        if events & EPOLLOUT and self.twin.waits == SINK:
            self.twin._go_on()
        if events & UNUSUAL:
            self._on_unusual(events)
        elif self.waits == SOURCE and events & EPOLLIN:
            if self.bulk:
                self._splice()
            else:
                self._read()

    def start_with(self, data: bytes) -> None:
        """Deliver bytes that were read before; an error shows again as an event once the sink is registered."""
        try:
            self.moved = os.write(self.sink, data)
        except OSError:
            pass
        self.pending = data[self.moved :]
        if self.pending:
            self.waits = SINK

    def give_up(self) -> None:
        """Move nothing any more, and drop what was not delivered."""
        self.waits = NOTHING
        self.pending = b""
        self._end_patience()
        if self.pipe is not None:
            self.owner.pipes.give(self.pipe)
            self.pipe = None

    @property
    def undelivered(self) -> bool:
        """Whether bytes were read that the sink has not taken yet."""
        return bool(self.pending) or self.pipe is not None

    def _on_unusual(self, events: int) -> None:
        # EPOLLHUP alone is a reset whose error another call has already reported, unless both directions were ended.
        if events & EPOLLERR or (events & EPOLLHUP and self.twin.waits != NOTHING):
            self.break_source()
        elif self.waits == SOURCE:
            # Reads stop short of urgent data (tcp(7)): neither a short read nor splice can then be relied on.
            self._copy()

    def break_source(self) -> None:
        """The source was reset, or cannot be written to: deliver what is still to be read of it, and no more."""
        self.broken = True
        self.twin.give_up()
        self.owner.broken(self)
        if self.waits == SOURCE:
            self._copy()
        elif self.waits == NOTHING:
            self.owner.drained(self)

    def _go_on(self) -> None:
        """The sink has room again, or it is this flow's turn."""
        self.waits = SOURCE
        if self.pending:
            pending, self.pending = self.pending, b""
            if not self._write(pending):
                return
        if self.bulk:
            self._splice()
        else:
            self._copy()

    def _turn(self) -> None:
        if self.waits == TURN:
            self._go_on()

    def _read(self) -> None:
        """One read. A short one has emptied the source, so there is no second; a small message is written later."""
        try:
            data = os.read(self.source, COPY_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self._source_failed()
            return
        if not data:
            self._source_ended()
        elif len(data) <= SMALL:
            self.pending = data
            self.waits = READS
            self.owner.loop.call_soon(self._deliver)
        elif self._write(data) and len(data) == COPY_SIZE:
            self._begin_bulk()
            self._splice()

    def _deliver(self) -> None:
        """All that was ready has been read."""
        if self.waits != READS:
            return
        data, self.pending = self.pending, b""
        self.waits = SOURCE
        if self._write(data) and self.broken:
            self._copy()

    def _copy(self) -> None:
        """Read and write until the source is empty, or this flow has had its share."""
        for _ in range(COPY_ROUNDS):
            try:
                data = os.read(self.source, COPY_SIZE)
            except BlockingIOError:
                return
            except OSError:
                self._source_failed()
                return
            if not data:
                self._source_ended()
                return
            if len(data) == COPY_SIZE:
                self._begin_bulk()
            if not self._write(data):
                return
        self._wait(TURN)

    def _write(self, data: bytes) -> bool:
        """Whether the sink took it all; the rest becomes `pending`."""
        try:
            sent = os.write(self.sink, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.twin.break_source()
            return False
        if not self.moved:
            self.owner.first_byte(self)
        self.moved += sent
        if sent == len(data):
            return True
        self.pending = data[sent:]
        self.waits = SINK
        return False

    def _splice(self) -> None:
        """Move what there is by way of a pipe, which is given back as soon as it is empty."""
        pipe = self.pipe or self.owner.pipes.take()
        if pipe is None:
            self._copy()
            return
        self.pipe = pipe
        moved_before = self.moved
        waits = self._pump(pipe)
        if not moved_before and self.moved:
            self.owner.first_byte(self)
        if pipe.filled == 0:
            self.pipe = None
            self.owner.pipes.give(pipe)
        if waits == SOURCE:
            if self.moved - moved_before < BULK_MIN:
                self.bulk = False
            elif self.patience is None and self.moved - self.bulk_from >= LONG_BULK:
                self.patience = Patience(self, self.owner.loop, self.source)
        self._wait(waits)

    def _begin_bulk(self) -> None:
        if not self.bulk:
            self.bulk, self.bulk_from = True, self.moved

    def lost_patience(self) -> None:
        """Nothing moved for a while: take what has come since, and wait for no more than a byte."""
        self.patience, self.bulk_from = None, self.moved
        if self.waits == SOURCE:
            self.bulk = False
            self._copy()

    def _pump(self, pipe: Pipe) -> int:
        """Fill and empty the pipe until one of the two sockets, or this flow's share, is exhausted; say which."""
        splice, source, sink, read_fd, write_fd = os.splice, self.source, self.sink, pipe.read_fd, pipe.write_fd
        filled = pipe.filled
        moved = 0
        try:
            while moved < SPLICE_SHARE:
                # Only an empty pipe is filled, so that EAGAIN can only mean that the source is empty.
                if not filled:
                    filled = splice(source, write_fd, SPLICE_SIZE, None, None, SPLICE_FLAGS)
                    if not filled:
                        return SOURCE_ENDED
                sent = splice(read_fd, sink, filled, None, None, SPLICE_FLAGS)
                filled -= sent
                moved += sent
        except BlockingIOError:
            return SINK if filled else SOURCE
        except OSError:
            return SINK_FAILED if filled else SOURCE_FAILED
        finally:
            pipe.filled = filled
            self.moved += moved
        return TURN

    def _wait(self, waits: int) -> None:
        self.waits = waits
        if waits == TURN:
            self.owner.loop.call_soon(self._turn)
        elif waits == SOURCE_ENDED:
            self._source_ended()
        elif waits == SOURCE_FAILED:
            self._source_failed()
        elif waits == SINK_FAILED:
            self.twin.break_source()

    def _end_patience(self) -> None:
        if self.patience is not None:
            self.patience.end()
            self.patience = None

    def _source_ended(self) -> None:
        self.waits = NOTHING
        self._end_patience()
        if self.broken:
            self.owner.drained(self)
        else:
            self.owner.ended(self)

    def _source_failed(self) -> None:
        self.waits = NOTHING
        self._end_patience()
        self.break_source()
