"""The reconciler's end of the holder streams: sends orders, receives counts.

Counterparts: `reconciler.ports.holders`, `tproxy.wire`. Each order has a version, and a holder acknowledges the version
that is in force. A disconnected holder counts as missing for a while, since it may continue to hold and relay; a holder
that reconnects with the same id replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

import grpc
import structlog

from reconciler.core.access import StreamKind
from reconciler.core.reasons import Reason
from reconciler.core.spec import Spec
from reconciler.ports.clock import FORGET_SECONDS
from reconciler.ports.holders import HoldOrder, HoldStatus, Report, added, wait_order
from tproxy import wire

log = structlog.get_logger(__name__)

CLOCK_SKEW_SECONDS = 300.0
"""Tolerated lead of a holder's clock; times beyond it are ignored."""
HOLD = wire.Hold()


CLAIMS = {wire.METHOD: (StreamKind.HOLDER, lambda first: first.hello.holder if first.hello else "")}
"""By method, the kind of stream, and how to read the holder's id from its first message."""


@dataclass(slots=True)
class HolderState:
    """One holder process: its reports, and the changes to send to it."""

    name: str
    mode: str = ""
    rules: bool | None = None
    """In mode tproxy, whether rules divert connections to it; None if unknown."""
    acked: int = 0
    counts: dict[str, wire.Count] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    """Addresses whose assignments it has not been sent yet."""
    sent: int = 0
    """The latest version that was sent to it."""
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False
    """True if its stream ended, and it has not reconnected."""
    replaced: bool = False
    """True if another stream with its id began."""


class HolderStreams:
    """Streams of all holders, and their orders.

    `joined` is called when a holder connects or disconnects, before any report. With 0 for `forget_seconds`, another
    replica may serve a disconnected holder: the caller then decides whether it counts.
    """

    def __init__(
        self,
        report: Report,
        now: Callable[[], float],
        forget_seconds: float = FORGET_SECONDS,
        joined: Callable[[], None] = lambda: None,
    ) -> None:
        self._report, self._now, self._forget_seconds, self._joined = report, now, forget_seconds, joined
        self._holders: dict[str, HolderState] = {}
        self._version = 0
        self._orders: dict[str, HoldOrder] = {}
        """By hold address. Assignments are built from them when they are sent."""
        self._addresses: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        self._acked_at: dict[str, float] = {}
        self._pending: set[str] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler for the gRPC server."""
        stream = grpc.stream_stream_rpc_method_handler(self._stream, wire.UP.decode, wire.ENCODER.encode)
        return grpc.method_handlers_generic_handler(wire.SERVICE, {"Stream": stream})

    @property
    def connected(self) -> list[str]:
        return [holder.name for holder in self._holders.values() if not holder.gone]

    @property
    def known(self) -> Sequence[HolderState]:
        """The holders that count, connected or not, for display."""
        return tuple(self._holders.values())

    def shares(self, service: str) -> Iterator[tuple[HolderState, wire.Count | None, bool]]:
        """Yield each holder with its count of a service, if any, and whether the present order is in force there."""
        address, version = self._addresses.get(service, ""), self._versions.get(service, 0)
        for holder in self._holders.values():
            yield holder, holder.counts.get(address), not holder.gone and holder.acked >= version

    def order(self, service: str, order: HoldOrder | None) -> HoldStatus | None:
        address = self._addresses.get(service)
        if order is None or (address and address != order.address):
            self._withdraw(service)
        if order is None:
            return None
        before = self._orders.get(order.address)
        self._orders[order.address] = order
        if before is None or assigned(before) != assigned(order):
            self._addresses[service] = order.address
            self._add_change(order.address)
            self._versions[service] = self._version
            self._acked_at.pop(service, None)
            self._pending.add(service)
        # An order that is the same for holders, such as one with another detail of a reason, is in force already.
        return self._status(service)

    def _withdraw(self, service: str) -> None:
        if address := self._addresses.pop(service, None):
            del self._orders[address]
            for holder in self._holders.values():
                holder.counts.pop(address, None)
            self._add_change(address)
        self._pending.discard(service)
        self._versions.pop(service, None)
        self._acked_at.pop(service, None)

    def _add_change(self, address: str) -> None:
        self._version += 1
        for holder in self._holders.values():
            if not holder.gone:
                holder.changed.add(address)
                holder.wakeup.set()

    async def _stream(
        self,
        received: AsyncIterator[wire.HolderReport],
        context: grpc.aio.ServicerContext[wire.HolderReport, wire.AssignmentUpdate],
    ) -> AsyncIterator[wire.AssignmentUpdate]:
        """Serve one holder: all assignments, then each change, until its stream ends or another one replaces it."""
        first = await anext(aiter(received), None)
        if first is None or first.hello is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message has no hello")
            return
        holder = self._join(first.hello, first.counts)
        del first  # it may be large, and the stream lasts
        receiving = asyncio.create_task(self._receive(holder, received))
        receiving.add_done_callback(lambda _: holder.wakeup.set())
        try:
            self._report_all()
            yield self._update(holder, full=True)
            while not receiving.done():
                await holder.wakeup.wait()
                holder.wakeup.clear()
                if holder.replaced:
                    await context.abort(grpc.StatusCode.ALREADY_EXISTS, "another stream has this holder id")
                if holder.changed:
                    yield self._update(holder, full=False)
            # A holder whose reports are not read must not look connected: it reconnects, and reports everything again.
            if error := await receiving:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error)
        finally:
            receiving.cancel()
            self._leave(holder)

    def _join(self, hello: wire.HolderHello, counts: tuple[wire.Count, ...]) -> HolderState:
        """Add a holder; it replaces a stream with the same id, which ends.

        Two holders with one id replace each other repeatedly, so that nothing counts as acknowledged for long: their
        counts could not be distinguished.
        """
        before = self._holders.get(hello.holder)
        if before is not None and not before.gone:
            log.warning(
                "holder reconnected before its old stream ended, or two holders have one id", holder=hello.holder
            )
            before.replaced = True
            before.wakeup.set()
        holder = self._holders[hello.holder] = HolderState(hello.holder, hello.mode, hello.rules)
        now = self._now()
        holder.counts = {count.address: _plausible(count, now) for count in counts}
        return holder

    def _leave(self, holder: HolderState) -> None:
        if self._holders.get(holder.name) is holder:
            holder.gone = True
            holder.acked = 0
            holder.changed.clear()
            holder.counts = {at: count for at, count in holder.counts.items() if at in self._orders}
            if self._forget_seconds:
                asyncio.get_running_loop().call_later(self._forget_seconds, self._forget, holder)
            else:
                del self._holders[holder.name]
            self._report_all()

    def _forget(self, holder: HolderState) -> None:
        if self._holders.get(holder.name) is holder:
            del self._holders[holder.name]
            self._report_all()

    def _update(self, holder: HolderState, full: bool) -> wire.AssignmentUpdate:
        """Return what a holder has not been sent yet, or with `full` all assignments."""
        known = self._orders
        changed = known.keys() if full else holder.changed
        assign = tuple(assigned(known[address]) for address in changed if address in known)
        remove = tuple(address for address in changed if address not in known)
        holder.changed.clear()
        holder.sent = self._version
        return wire.AssignmentUpdate(self._version, assign, remove, full)

    async def _receive(self, holder: HolderState, received: AsyncIterator[wire.HolderReport]) -> str:
        """Process the reports of a holder until its stream ends; return the error of the last message, if any."""
        async for message in received:
            if message.acked > holder.sent:
                return "acked is a version that was not sent to this holder"
            if len(holder.counts) > wire.MAX_COUNTS:
                return f"counts has more than {wire.MAX_COUNTS} addresses"
            if message.rules is not None:
                holder.rules = message.rules
            now = self._now()
            for count in message.counts:
                holder.counts[count.address] = _plausible(count, now)
                if not (count.held or count.relayed or count.address in self._orders):
                    del holder.counts[count.address]  # the address is unknown or was withdrawn
            changed = {order.spec.name for c in message.counts if (order := self._orders.get(c.address))}
            if message.acked > holder.acked:
                holder.acked = message.acked
                changed |= self._note_acknowledged()
            for service in changed:
                self._report(self._status(service))
        return ""

    def _note_acknowledged(self) -> set[str]:
        """Note and return the services whose present order is now in force on all holders, and was not before."""
        acked = min((holder.acked for holder in self._holders.values()), default=0)
        done = {service for service in self._pending if self._versions[service] <= acked}
        self._pending -= done
        if not self._pending:
            self._pending.clear()  # it may have been all services, and a set never shrinks by itself
        self._acked_at.update(dict.fromkeys(done, self._now()))
        return done

    def _report_all(self) -> None:
        """Report all services: a holder connected or disconnected, so all orders must be acknowledged again."""
        self._joined()
        self._pending = set(self._versions)
        self._acked_at.clear()
        self._note_acknowledged()
        for service in list(self._addresses):
            self._report(self._status(service))

    def _status(self, service: str) -> HoldStatus:
        """Return the sums over all holders. While one is missing, relayed is None, and so is held if it would be 0."""
        address = self._addresses[service]
        held = relayed = released = refused = gone = 0
        first_byte_at, complete, refused_by = None, bool(self._holders), []
        earliest, via, first = (True, inf), None, None
        for holder in self._holders.values():
            complete = complete and not holder.gone
            if count := holder.counts.get(address):
                held, relayed, released = held + count.held, relayed + count.relayed, released + count.released
                refused, gone = refused + count.refused, gone + count.gone
                refused_by.append(count.refused_by)
                if count.first_byte_at:
                    first_byte_at = max(first_byte_at or 0.0, count.first_byte_at)
                if count.held_since and (waits := wait_order(count.held, count.held_since)) < earliest:
                    earliest, via, first = waits, holder.name, count
        return HoldStatus(
            service,
            held=held if complete or held else None,
            relayed=relayed if complete else None,
            acked_at=self._acked_at.get(service),
            released=released,
            refused=refused,
            gone=gone,
            held_since=first.held_since if first else None,
            peer=first.peer if first else None,
            via=via,
            first_byte_at=first_byte_at,
            refused_by=added(refused_by),
        )


def _plausible(count: wire.Count, now: float) -> wire.Count:
    """Return a count without times that are in the future."""
    latest = now + CLOCK_SKEW_SECONDS
    if (count.held_since or 0.0) <= latest and (count.first_byte_at or 0.0) <= latest:
        return count
    return wire.without_times(count)


def assigned(order: HoldOrder) -> wire.Assignment:
    """Translate an order to the message for holders."""
    spec: Spec = order.spec
    verdict: wire.Verdict = wire.Go(order.release_to) if order.release_to else HOLD
    return wire.Assignment(
        order.address,
        spec.name,
        spec.protocol.value,
        verdict,
        spec.max_held,
        spec.hold_timeout,
        _reason(order),
        has_header=not spec.protocol.is_http,  # Envoy sends one for these protocols only
        reference=order.reference,
        waits_for_bytes=spec.waits_for_bytes,
    )


def _reason(order: HoldOrder) -> str | None:
    """Return the diagnosis for clients: its code, or all of it if the spec allows that."""
    if order.diagnosis is None:
        return None
    if order.spec.refusal_details:
        return str(order.diagnosis)
    return None if order.diagnosis.code is Reason.OTHER else order.diagnosis.code.value
