"""The reconciler's end of the holder stream. Counterparts: `reconciler.ports.holders`, `tproxy.wire`.

An order has a version; a holder echoes the version that it has in force. A holder that went away is still counted as
missing for a while, since it may go on holding and relaying; one that comes back under its old name takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import grpc
import structlog

from reconciler.core.entitlement import StreamKind
from reconciler.core.reasons import Reason
from reconciler.core.spec import Spec
from reconciler.ports.holders import HoldOrder, HoldStatus, Report, added
from tproxy import wire

log = structlog.get_logger(__name__)

FORGET_SECONDS = 300.0
"""How long a holder may be away before it no longer counts."""
CLOCK_SKEW_SECONDS = 300.0
"""How far a holder's clock may be ahead of ours; a time beyond it is not known."""
HOLD = wire.Hold()


def _claimed(first: wire.HolderReport) -> str:
    return first.hello.holder if first.hello else ""


CLAIMS = {wire.METHOD: (StreamKind.HOLDER, _claimed)}
"""By method, the kind of stream and how to get the holder's id from its first message."""


@dataclass(slots=True)
class HolderState:
    """One holder process: what it said, and what it was told."""

    name: str
    mode: str = ""
    rules: bool | None = None
    """Mode tproxy: whether rules divert connections to it; None: it does not know yet, or says nothing of it."""
    acked: int = 0
    counts: dict[str, wire.Count] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    """Addresses whose assignment it has yet to be told."""
    told: int = 0
    """The latest version that was sent to it."""
    wake_up: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False
    """Whether its stream ended, and it did not come back."""
    replaced: bool = False
    """Whether another stream came under its name."""


class HolderStreams:
    """All holders, and what they are to do; one that is away for `forget_seconds` no longer counts, with 0 it is
    somebody else's to tell away from elsewhere. `joined` is told of one that came or went, before anything is reported.
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
        """By hold address; what holders are told is made of them when it is told."""
        self._addresses: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        self._acked_at: dict[str, float] = {}
        self._pending: set[str] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to the gRPC server."""
        stream = grpc.stream_stream_rpc_method_handler(self._stream, wire.UP.decode, wire.ENCODER.encode)
        return grpc.method_handlers_generic_handler(wire.SERVICE, {"Stream": stream})

    @property
    def connected(self) -> list[str]:
        return [holder.name for holder in self._holders.values() if not holder.gone]

    @property
    def known(self) -> Sequence[HolderState]:
        """All that count, connected or not, for people."""
        return tuple(self._holders.values())

    def shares(self, service: str) -> Iterator[tuple[HolderState, wire.Count | None, bool]]:
        """What each holder has of a service, None for nothing yet, and whether its present order is in force there."""
        address, version = self._addresses.get(service, ""), self._versions.get(service, 0)
        for holder in self._holders.values():
            yield holder, holder.counts.get(address), not holder.gone and holder.acked >= version

    def order(self, service: str, order: HoldOrder | None) -> None:
        address = self._addresses.get(service)
        if order is None or (address and address != order.address):
            self._withdraw(service)
        if order is None:
            return
        before = self._orders.get(order.address)
        self._orders[order.address] = order
        if before is not None and assigned(before) == assigned(order):
            return
        self._addresses[service] = order.address
        self._tell(order.address)
        self._versions[service] = self._version
        self._acked_at.pop(service, None)
        self._pending.add(service)

    def _withdraw(self, service: str) -> None:
        if address := self._addresses.pop(service, None):
            del self._orders[address]
            for holder in self._holders.values():
                holder.counts.pop(address, None)
            self._tell(address)
        self._pending.discard(service)
        self._versions.pop(service, None)
        self._acked_at.pop(service, None)

    def _tell(self, address: str) -> None:
        self._version += 1
        for holder in self._holders.values():
            if not holder.gone:
                holder.changed.add(address)
                holder.wake_up.set()

    async def _stream(
        self,
        messages: AsyncIterator[wire.HolderReport],
        context: grpc.aio.ServicerContext[wire.HolderReport, wire.AssignmentUpdate],
    ) -> AsyncIterator[wire.AssignmentUpdate]:
        first = await anext(aiter(messages), None)
        if first is None or first.hello is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message has no hello")
            return
        holder = self._join(first.hello, first.counts)
        del first  # it may be large, and the stream lasts
        listening = asyncio.create_task(self._listen(holder, messages))
        listening.add_done_callback(lambda _: holder.wake_up.set())
        try:
            self._report_all()
            yield self._everything(holder)
            while not listening.done():
                await holder.wake_up.wait()
                holder.wake_up.clear()
                if holder.replaced:
                    await context.abort(grpc.StatusCode.ALREADY_EXISTS, "another stream came under this holder's id")
                if holder.changed:
                    yield self._changes(holder)
            # A holder that nobody listens to must not look connected: it comes back, and says all again.
            if wrong := await listening:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, wrong)
        finally:
            listening.cancel()
            self._lost(holder)

    def _join(self, hello: wire.HolderHello, counts: tuple[wire.Count, ...]) -> HolderState:
        """A holder that comes back takes the place of its old stream, which ends: were it another holder with the same
        id, nobody would know who waits there. The two then take turns, and nothing counts as acknowledged for long.
        """
        before = self._holders.get(hello.holder)
        if before is not None and not before.gone:
            log.warning("a holder comes back before its old stream has ended, or two have one id", holder=hello.holder)
            before.replaced = True
            before.wake_up.set()
        holder = self._holders[hello.holder] = HolderState(hello.holder, hello.mode, hello.rules)
        now = self._now()
        holder.counts = {count.address: _plausible(count, now) for count in counts}
        return holder

    def _lost(self, holder: HolderState) -> None:
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

    def _everything(self, holder: HolderState) -> wire.AssignmentUpdate:
        holder.changed.clear()
        holder.told = self._version
        return wire.AssignmentUpdate(
            self._version, tuple(assigned(order) for order in self._orders.values()), full=True
        )

    def _changes(self, holder: HolderState) -> wire.AssignmentUpdate:
        known = self._orders
        assign = tuple(assigned(known[address]) for address in holder.changed if address in known)
        remove = tuple(address for address in holder.changed if address not in known)
        holder.changed.clear()
        holder.told = self._version
        return wire.AssignmentUpdate(self._version, assign, remove)

    async def _listen(self, holder: HolderState, messages: AsyncIterator[wire.HolderReport]) -> str:
        """Take what a holder reports until its stream ends; return what is wrong with the last message, if anything."""
        async for message in messages:
            if message.acked > holder.told:
                return "the holder acknowledges a version that it was not sent"
            if len(holder.counts) > wire.MAX_COUNTS:
                return f"the holder counts connections to more than {wire.MAX_COUNTS} addresses"
            if message.rules is not None:
                holder.rules = message.rules
            now = self._now()
            for count in message.counts:
                holder.counts[count.address] = _plausible(count, now)
                if not (count.held or count.relayed or count.address in self._orders):
                    del holder.counts[count.address]  # it is no more, or never was
            changed = {order.spec.name for c in message.counts if (order := self._orders.get(c.address))}
            if message.acked > holder.acked:
                holder.acked = message.acked
                changed |= self._acknowledged()
            for service in changed:
                self._report(self._held(service))
        return ""

    def _acknowledged(self) -> set[str]:
        """Services whose present order has just come in force everywhere."""
        acked = min((holder.acked for holder in self._holders.values()), default=0)
        done = {service for service in self._pending if self._versions[service] <= acked}
        self._pending -= done
        if not self._pending:
            self._pending.clear()  # it may have been all services, and a set never shrinks by itself
        self._acked_at.update(dict.fromkeys(done, self._now()))
        return done

    def _report_all(self) -> None:
        """A holder came or went: what was acknowledged by all has to be so again."""
        self._joined()
        self._pending = set(self._versions)
        self._acked_at.clear()
        self._acknowledged()
        for service in list(self._addresses):
            self._report(self._held(service))

    def _held(self, service: str) -> HoldStatus:
        address = self._addresses[service]
        held = relayed = released = refused = gone = 0
        first_byte_at, complete, refused_by = None, bool(self._holders), []
        for holder in self._holders.values():
            complete = complete and not holder.gone
            if count := holder.counts.get(address):
                held, relayed, released = held + count.held, relayed + count.relayed, released + count.released
                refused, gone = refused + count.refused, gone + count.gone
                refused_by.append(count.refused_by)
                if count.first_byte_at:
                    first_byte_at = max(first_byte_at or 0.0, count.first_byte_at)
        via, first = self._first(address) if refused_by else (None, None)
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

    def _first(self, address: str) -> tuple[str | None, wire.Count | None]:
        """Where the first of those that wait (or waited last) came to, and what was counted there."""
        known = ((name, holder.counts.get(address)) for name, holder in self._holders.items())
        began = [(name, count) for name, count in known if count and count.held_since]
        return min(began, key=lambda pair: _began(pair[1]), default=(None, None))


def _began(count: wire.Count) -> tuple[bool, float]:
    """Those that still wait come first, then the latest wait that is over."""
    since = count.held_since or 0.0
    return (False, since) if count.held else (True, -since)


def _plausible(count: wire.Count, now: float) -> wire.Count:
    """Return a count without times that are in the future."""
    latest = now + CLOCK_SKEW_SECONDS
    if (count.held_since or 0.0) <= latest and (count.first_byte_at or 0.0) <= latest:
        return count
    return wire.without_times(count)


def assigned(order: HoldOrder) -> wire.Assignment:
    """The order in the words of the wire."""
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
        has_header=not spec.protocol.is_http,  # as xds/messages.py has Envoy do it
        reference=order.reference,
    )


def _reason(order: HoldOrder) -> str | None:
    """Return what clients may read of a stalled wake: the code, or all of it if the spec allows that."""
    if order.diagnosis is None:
        return None
    if order.spec.refusal_details:
        return str(order.diagnosis)
    return None if order.diagnosis.code is Reason.OTHER else order.diagnosis.code.value
