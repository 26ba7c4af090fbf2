"""The holder stream: what a holder and the reconciler tell each other, and nothing else.

One bidirectional gRPC stream a holder, at `METHOD`. Each message is one msgspec struct in MessagePack: `Down` from the
reconciler, `Up` from the holder. Times are seconds since the epoch. Fields are only ever added, at the end and with a
default: holders and reconcilers of two releases talk to each other. This module is the only one that both sides import.

Fields of `Up` have bounds, which decoding checks: a message with a field out of bounds is refused as a whole, and NaN
is out of any bounds.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

HTTP = ("http", "h2c")
"""Of the protocols that an assignment may name, those that ask and answer."""
SERVICE = "zenvoy.v1.Holder"
METHOD = f"/{SERVICE}/Stream"
MOST_COUNTS = 20_000
"""Hold addresses in one message: twice the services that are supported, as one may have had another address before."""
LAST_SECOND = 4_102_444_800
"""The end of the year 2099, in seconds since the epoch."""

Name = Annotated[str, Meta(max_length=256)]
Place = Annotated[str, Meta(max_length=64, pattern=r"^[0-9A-Za-z_.:%\[\]-]*$")]
Total = Annotated[int, Meta(ge=0, le=2**53)]
Moment = Annotated[float, Meta(ge=0, le=LAST_SECOND)]
Reason = Annotated[str, Meta(max_length=32)]


class Hold(msgspec.Struct, frozen=True, tag="hold", array_like=True):
    """Keep connections waiting."""


class Go(msgspec.Struct, frozen=True, tag="go", array_like=True):
    """Connect those who wait, and all who come, to one of these `ip:port` (IPv6 in brackets)."""

    endpoints: tuple[str, ...]


class Refuse(msgspec.Struct, frozen=True, tag="refuse", array_like=True):
    """Refuse those who wait, and all who come."""

    reason: str


Verdict = Hold | Go | Refuse


class Assignment(msgspec.Struct, frozen=True, array_like=True):
    """What to do with the connections to one hold address."""

    address: str
    """`ip:port` as dialled (IPv6 in brackets)."""
    service: str
    protocol: str
    """`http`, `h2c`, `tcp` or `tls`: how a refusal looks, and what a client's FIN means."""
    verdict: Verdict
    max_held: int
    hold_timeout: float
    """Seconds that one connection may wait."""
    reason: str | None = None
    """Why the wake is stalled, as far as the client whose wait ends in a refusal may know it."""
    has_header: bool = False
    """Whether each connection begins with a header of the PROXY protocol, version 2, which says whose it is."""
    reference: str = ""
    """An id for refusals, by which operators find the rest of the reason."""


class Down(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A change of assignments. The first of a stream is full: what it does not name is forgotten."""

    version: int
    """Echoed in `Up.acked` once every assignment in this message is in force."""
    assign: tuple[Assignment, ...] = ()
    remove: tuple[str, ...] = ()
    """Addresses that are no longer used: new connections are refused, relayed ones go on."""
    full: bool = False


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first thing that a holder says."""

    holder: Name
    """An id that lives as long as the holder's process."""
    mode: Annotated[str, Meta(max_length=16)]
    """`anyip` or `tproxy`."""
    rules: bool | None = None
    """Mode tproxy: whether rules divert connections to it; None: it does not know yet."""


class Count(msgspec.Struct, frozen=True, array_like=True):
    """All that a holder knows of one hold address, as totals, so that a message may be lost."""

    address: Annotated[str, Meta(max_length=64)]
    held: Total
    relayed: Total
    released: Total
    """Held connections that were connected, ever."""
    refused: Total
    """Connections that were refused, on arrival or after a wait, or timed out, ever."""
    gone: Total
    """Held connections whose client gave up, ever."""
    held_since: Moment | None = None
    """When the oldest of those that wait was accepted; while nobody waits, when the last wait began."""
    peer: Place | None = None
    """Who waits on that connection: its client, `ip:port` by its header or `ip` by its request; as long as neither has
    come, who opened it, as `ip:port`."""
    first_byte_at: Moment | None = None
    """When the latest wait that was released saw the first byte from its endpoint."""
    refused_by: Annotated[dict[Reason, Total], Meta(max_length=16)] = {}
    """Of `refused`, how many for which reason: max_held, descriptors, timeout, refused, draining, unknown."""


class Up(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What changed in a holder."""

    acked: Total = 0
    """The latest `Down.version` in force."""
    counts: Annotated[tuple[Count, ...], Meta(max_length=MOST_COUNTS)] = ()
    hello: Hello | None = None
    """Set in the first message of a stream only. Its counts are complete: an address without one never had a
    connection."""
    rules: bool | None = None
    """Set when that of the hello is otherwise now."""


def without_times(count: Count) -> Count:
    """Return a count whose times are not known."""
    return msgspec.structs.replace(count, held_since=None, first_byte_at=None)


ENCODER = msgspec.msgpack.Encoder()
DOWN = msgspec.msgpack.Decoder(Down)
UP = msgspec.msgpack.Decoder(Up)
