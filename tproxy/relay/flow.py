"""One direction of a relayed connection: from its source to its sink, in order, in bounded memory.

A flow waits for exactly one thing at a time (`waits`). Both sockets are registered edge-triggered and only once, so
that waiting costs no system call. This requires that a flow returns to waiting for its source only after it has seen
the source empty, and for its sink only after it has seen the sink full.

Small messages are read and written: two system calls each. All ready sources are read before the first write, so that a
peer that is woken by one message finds the others as well. A read that fills the whole buffer makes the flow *bulk*:
its bytes are then moved with splice(2) through a pipe, without a copy, until an event moves too few of them.

A flow that stays bulk is *patient*: SO_RCVLOWAT (socket(7)) makes the kernel report the source only once many bytes
have arrived. The kernel reports an end, a reset, and a full receive window at once, but not a last message that is
shorter than the mark. A timer therefore ends the patience of a flow that has not moved since the last check.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from typing import Protocol

from tproxy.io import tcp
from tproxy.io.loop import Loop, Timer
from tproxy.relay.pipes import Pipe, Pipes

INTEREST = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET
UNUSUAL = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI

SOURCE, SINK, TURN, BATCH, NOTHING, SOURCE_ENDED, SOURCE_FAILED, SINK_FAILED = range(8)
"""`waits`: for bytes from the source, for room in the sink, for its next turn after it has used its share, for
the reads of other flows, or for nothing any more. The last three are results of `_pump` only."""

COPY_SIZE = 1 << 16
SMALL = 1 << 12
"""Longer messages are written at once: batching them would save no wake-ups and would use memory."""
SPLICE_SIZE = 1 << 20
SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
"""Without SPLICE_F_MORE: it delays the last bytes (as MSG_MORE does), and which ones are last is not known."""
BULK_MIN = 1 << 15
"""An event that moves fewer bytes than this ends bulk."""
PATIENT_AFTER = 1 << 23
"""Bytes moved in bulk after which a flow becomes patient."""
LOW_WATER = 1 << 18
PATIENCE_SECONDS = 0.005
"""Interval of the checks. A last message is delayed by twice this time at most."""
COPY_ROUNDS = 8
SPLICE_SHARE = 4 << 20
"""Buffers that a flow may copy, and bytes that it may splice, before other flows have their turn."""


class FlowOwner(Protocol):
    """The relayed connection that consists of a flow and its twin. `on_source_broken` may be called more than once."""

    loop: Loop
    pipes: Pipes

    def close(self) -> None: ...

    def on_first_byte(self, flow: Flow) -> None: ...

    def on_source_broken(self, flow: Flow) -> None: ...

    def on_broken_source_drained(self, flow: Flow) -> None: ...


@dataclass(slots=True, eq=False)
class Flow:
    """Moves bytes from `source` to `sink`; `twin` is the other direction, between the same two sockets."""

    owner: FlowOwner
    source: int
    sink: int
    waits: int = SOURCE
    moved: int = 0
    pending: bytes = b""
    pipe: Pipe | None = None
    bulk: bool = False
    mark: int = 0
    """The value of `moved` when bulk began or, for a patient flow, at the last check."""
    patience: Timer | None = None
    broken: bool = False
    twin: Flow = field(init=False)

    def on_events(self, events: int) -> None:
        """Handle events of the socket that is the source of this flow and the sink of its twin."""
        if events & EPOLLOUT and self.twin.waits == SINK:
            self.twin._resume()
        if events & UNUSUAL:
            self._on_unusual(events)
        elif self.waits == SOURCE and events & EPOLLIN:
            if self.bulk:
                self._splice()
            else:
                self._read()

    def stop(self) -> None:
        """Move no more bytes, and drop those that are not delivered."""
        self._end()
        self.pending = b""
        if self.pipe is not None:
            self.owner.pipes.give(self.pipe)
            self.pipe = None

    @property
    def undelivered(self) -> bool:
        """True if bytes were read that the sink has not taken."""
        return bool(self.pending) or self.pipe is not None

    def break_source(self) -> None:
        """Deliver the rest of a source that was reset or cannot be written to."""
        self.broken = True
        self.twin.stop()
        self.owner.on_source_broken(self)
        if self.waits == SOURCE:
            self._copy()
        elif self.waits == NOTHING:
            self.owner.on_broken_source_drained(self)

    def _on_unusual(self, events: int) -> None:
        # EPOLLHUP alone is a reset whose error another call has already reported, unless both directions have ended.
        if events & EPOLLERR or (events & EPOLLHUP and self.twin.waits != NOTHING):
            self.break_source()
        elif self.waits == SOURCE:
            # Reads stop before urgent data (tcp(7)), so neither a short read nor splice shows that the source is empty.
            self._copy()

    def _resume(self) -> None:
        self.waits = SOURCE
        if self.pending:
            pending, self.pending = self.pending, b""
            if not self._write(pending):
                return
        if self.bulk:
            self._splice()
        else:
            self._copy()

    def _take_turn(self) -> None:
        if self.waits == TURN:
            self._resume()

    def _read(self) -> None:
        """Read once. A short read has emptied the source, so there is no second one."""
        try:
            data = os.read(self.source, COPY_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        if not data:
            self._source_ended()
        elif len(data) <= SMALL:
            self.pending = data
            self.waits = BATCH
            self.owner.loop.call_soon(self._write_batched)
        elif self._write(data) and len(data) == COPY_SIZE:
            self._begin_bulk()
            self._splice()

    def _write_batched(self) -> None:
        if self.waits != BATCH:
            return
        data, self.pending = self.pending, b""
        self.waits = SOURCE
        if self._write(data) and self.broken:
            self._copy()

    def _copy(self) -> None:
        """Read and write until the source is empty or the flow has had its share."""
        for _ in range(COPY_ROUNDS):
            try:
                data = os.read(self.source, COPY_SIZE)
            except BlockingIOError:
                return
            except OSError:
                self._fail()
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
        """Write to the sink, keep the rest as `pending`, and return whether nothing is left."""
        try:
            sent = os.write(self.sink, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.twin.break_source()
            return False
        if not self.moved:
            self.owner.on_first_byte(self)
        self.moved += sent
        if sent == len(data):
            return True
        self.pending = data[sent:]
        self.waits = SINK
        return False

    def _splice(self) -> None:
        """Move bytes through a pipe, which is returned as soon as it is empty."""
        pipe = self.pipe or self.owner.pipes.take()
        if pipe is None:
            self._copy()
            return
        self.pipe = pipe
        moved_before = self.moved
        waits = self._pump(pipe)
        if not moved_before and self.moved:
            self.owner.on_first_byte(self)
        if pipe.filled == 0:
            self.pipe = None
            self.owner.pipes.give(pipe)
        if waits == SOURCE:
            if self.moved - moved_before < BULK_MIN:
                self.bulk = False
            elif self.patience is None and self.moved - self.mark >= PATIENT_AFTER:
                tcp.set_option(self.source, socket.SO_RCVLOWAT, LOW_WATER)
                self._check_later()
        self._wait(waits)

    def _pump(self, pipe: Pipe) -> int:
        """Fill and empty the pipe until a socket or the share of the flow is exhausted; return what to wait for."""
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
            self.owner.loop.call_soon(self._take_turn)
        elif waits == SOURCE_ENDED:
            self._source_ended()
        elif waits == SOURCE_FAILED:
            self._fail()
        elif waits == SINK_FAILED:
            self.twin.break_source()

    def _begin_bulk(self) -> None:
        if not self.bulk:
            self.bulk = True
            if self.patience is None:
                self.mark = self.moved

    def _check_later(self) -> None:
        self.mark = self.moved
        self.patience = self.owner.loop.call_later(PATIENCE_SECONDS, self._check)

    def _check(self) -> None:
        """End the patience of a flow that has not moved since the last check, and move what has arrived."""
        if self.moved != self.mark:
            self._check_later()
            return
        self.patience = None
        tcp.set_option(self.source, socket.SO_RCVLOWAT, 1)
        if self.waits == SOURCE:
            self.bulk = False
            self._copy()

    def _end(self) -> None:
        self.waits = NOTHING
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None

    def _source_ended(self) -> None:
        """Pass on the end of this direction; close after both have ended."""
        self._end()
        if self.broken:
            self.owner.on_broken_source_drained(self)
        elif self.twin.waits == NOTHING:
            self.owner.close()
        else:
            try:
                tcp.end_writes(self.sink)
            except OSError:
                self.twin.break_source()

    def _fail(self) -> None:
        self._end()
        self.break_source()
