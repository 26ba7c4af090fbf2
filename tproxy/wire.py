"""The holder stream: the messages between holders and the reconciler. The only module that both ends import.

There is one bidirectional gRPC stream per holder, at `METHOD`. Each message is one msgspec struct in MessagePack:
`AssignmentUpdate` from the reconciler, `HolderReport` from the holder. Times are in seconds since the epoch. Fields are
only ever added, at the end and with a default, because holders and reconcilers of two releases talk to each other.

Decoding checks the bounds of the fields of `HolderReport`. A message with a field out of bounds is rejected as a whole;
NaN is out of any bounds.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

HTTP = ("http", "h2c", "auto")
"""The protocols of an assignment that have requests and responses."""
HTTP2 = ("h2c", "auto")
"""Those with which a connection may be HTTP/2."""
SERVICE = "zenvoy.v1.Holder"
METHOD = f"/{SERVICE}/Stream"
MAX_COUNTS = 20_000
"""Hold addresses in one message: twice the supported services, because a service may have had another address."""
LATEST_TIME = 4_102_444_800
"""The end of the year 2099."""

Name = Annotated[str, Meta(max_length=256)]
Place = Annotated[str, Meta(max_length=64, pattern=r"^[0-9A-Za-z_.:%\[\]-]*$")]
Total = Annotated[int, Meta(ge=0, le=2**53)]
Moment = Annotated[float, Meta(ge=0, le=LATEST_TIME)]
RefusedBy = Annotated[dict[Annotated[str, Meta(max_length=32)], Total], Meta(max_length=16)]


class Hold(msgspec.Struct, frozen=True, tag="hold", array_like=True):
    """Hold connections."""


class Go(msgspec.Struct, frozen=True, tag="go", array_like=True):
    """Release held connections, and relay new ones, to one of these endpoints: `ip:port` (IPv6 in brackets)."""

    endpoints: tuple[str, ...]


Verdict = Hold | Go


class Assignment(msgspec.Struct, frozen=True, array_like=True):
    """The service of one hold address, and what to do with its connections."""

    address: str
    """`ip:port` as dialed (IPv6 in brackets)."""
    service: str
    protocol: str
    """`http`, `h2c`, `auto` (either of them), `tcp` or `tls`. It determines the form of a refusal, and the meaning of a
    client's FIN."""
    verdict: Verdict
    max_held: int
    hold_timeout: float
    """Seconds that a connection may be held."""
    reason: str | None = None
    """The reason why the wake is stalled, as far as refused clients may know it."""
    has_header: bool = False
    """True if each connection begins with a PROXY protocol header, version 2, that names its client."""
    reference: str = ""
    """An id in refusals, by which operators find the full reason."""
    waits_for_bytes: bool = False
    """True if a connection counts as held only from the first byte of its client, which may follow the header."""


class AssignmentUpdate(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A change of assignments. The first one of a stream is full: addresses that it does not name are removed."""

    version: int
    """Repeated in `HolderReport.acked` once every assignment in this message is in force."""
    assign: tuple[Assignment, ...] = ()
    remove: tuple[str, ...] = ()
    """Addresses that are no longer used: new connections are refused, relayed ones continue."""
    full: bool = False


class HolderHello(msgspec.Struct, frozen=True, array_like=True):
    """The identity of a holder, in its first message."""

    holder: Name
    """An id that is unique among running holders."""
    mode: Annotated[str, Meta(max_length=16)]
    """`anyip` or `tproxy`."""
    rules: bool | None = None
    """Mode tproxy: True if rules redirect connections to the holder; None if that is not known yet."""


class Count(msgspec.Struct, frozen=True, array_like=True):
    """The counts of one hold address, as totals, so that a message may be lost."""

    address: Annotated[str, Meta(max_length=64)]
    held: Total
    relayed: Total
    released: Total
    """Held connections that were released."""
    refused: Total
    """Connections that were refused, on arrival, after a wait, or by timeout."""
    gone: Total
    """Held connections whose client disconnected."""
    held_since: Moment | None = None
    """The time when the oldest held connection was accepted; while none is held, when the last wait began."""
    peer: Place | None = None
    """The client of that connection: `ip:port` from its header or `ip` from its request. Until one of them has arrived,
    the peer that opened it, as `ip:port`."""
    first_byte_at: Moment | None = None
    """The time of the first byte from an endpoint after the latest wait."""
    refused_by: RefusedBy = {}
    """`refused` by reason: max_held, descriptors, timeout, removed, draining, unassigned."""


class HolderReport(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Changes in a holder."""

    acked: Total = 0
    """The latest `AssignmentUpdate.version` in force."""
    counts: Annotated[tuple[Count, ...], Meta(max_length=MAX_COUNTS)] = ()
    hello: HolderHello | None = None
    """Set in the first message of a stream only. The counts of that message are complete: an address without one has
    never had a connection."""
    rules: bool | None = None
    """Set if `HolderHello.rules` has changed."""


def without_times(count: Count) -> Count:
    """Return a count without its times."""
    return msgspec.structs.replace(count, held_since=None, first_byte_at=None)


ENCODER = msgspec.msgpack.Encoder()
DOWN = msgspec.msgpack.Decoder(AssignmentUpdate)
UP = msgspec.msgpack.Decoder(HolderReport)
