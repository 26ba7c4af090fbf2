"""The peer stream: what a follower and the leader tell each other, and nothing else.

One bidirectional gRPC stream a follower, at `METHOD`, on the leader's port. Each message is one msgspec struct in
MessagePack. Fields are only ever added, at the end and with a default: replicas of two releases run side by side.

Fields have bounds, which decoding checks: a message with a field out of bounds is refused as a whole.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reconciler.core.record import Record

SERVICE = "zenvoy.v1.Peer"
METHOD = f"/{SERVICE}/Stream"
MOST = 20_000
"""Services, Envoys or holders in one message; twice what is supported."""
MOST_REASON = 500
"""Characters of a text for people that a follower sends; a longer one of an older release is cut."""

Name = Annotated[str, Meta(max_length=256)]
Service = Annotated[str, Meta(max_length=400)]
Place = Annotated[str, Meta(max_length=64, pattern=r"^[0-9A-Za-z_.:%\[\]-]*$")]
Total = Annotated[int, Meta(ge=0, le=2**53)]
Moment = Annotated[float, Meta(ge=0, le=4_102_444_800)]
Text = Annotated[str, Meta(max_length=65_536)]


class Fleet(msgspec.Struct, frozen=True, array_like=True):
    """Who is connected; from the leader: who is known, to any replica, or was lately."""

    envoys: Annotated[dict[Name, Place], Meta(max_length=MOST)] = {}
    """By node id, `ip:port` where its statistics can be read, empty when it does not say."""
    holders: Annotated[tuple[Name, ...], Meta(max_length=MOST)] = ()


def common(one: Fleet, other: Fleet) -> Fleet:
    """Who is in both."""
    envoys = {node: stats for node, stats in one.envoys.items() if other.envoys.get(node) == stats}
    return Fleet(envoys, tuple(holder for holder in one.holders if holder in other.holders))


def together(one: Fleet, other: Fleet) -> Fleet:
    """Who is in either; what `other` says of an Envoy counts."""
    return Fleet(one.envoys | other.envoys, tuple(sorted({*one.holders, *other.holders})))


def without(one: Fleet, other: Fleet) -> Fleet:
    """Who is in `one` alone."""
    envoys = {node: stats for node, stats in one.envoys.items() if node not in other.envoys}
    return Fleet(envoys, tuple(holder for holder in one.holders if holder not in other.holders))


class Word(msgspec.Struct, frozen=True, array_like=True):
    """The leader's record of one service."""

    service: Service
    version: Total
    """Echoed in `Report.version`; grows with each change of any service."""
    record: Record
    fence: bool = False
    """Whether followers leave the record as it is until the next word."""
    cause: str = ""
    """The name of the event that brought the record's state about, for people; empty when that is not known."""


class Down(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """From the leader. A stream begins with all services, in several messages."""

    words: Annotated[tuple[Word, ...], Meta(max_length=MOST)] = ()
    removed: Annotated[tuple[Service, ...], Meta(max_length=MOST)] = ()
    whole: bool = False
    """All services were named since the stream began: what was not is no more."""
    fleet: Fleet | None = None


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first thing that a follower says."""

    replica: Place
    """Its IP address, as the reconciler's EndpointSlices name it."""


class Report(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """All that a follower knows of one service, as totals; times are seconds since the epoch."""

    service: Service
    version: Total
    in_force: bool = False
    """Whether the record of that version is in force at all of the follower's Envoys and holders, and stays so."""
    waiting_for: Text = ""
    held: Total | None = 0
    """None while not known."""
    relayed: Total | None = 0
    released: Total = 0
    refused: Total = 0
    gone: Total = 0
    held_since: Moment | None = None
    peer: Place | None = None
    first_byte_at: Moment | None = None
    refused_by: Annotated[dict[Annotated[str, Meta(max_length=32)], Total], Meta(max_length=16)] = {}
    via: Name | None = None


class Up(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """From a follower. The first of a stream has its hello and its fleet."""

    hello: Hello | None = None
    fleet: Fleet | None = None
    reports: Annotated[tuple[Report, ...], Meta(max_length=MOST)] = ()
    faults: Annotated[dict[Service, Annotated[str, Meta(max_length=MOST_REASON)]], Meta(max_length=MOST)] | None = None
    """What the follower's Envoys reject of services, by service; None: as before."""


def shortened(report: Report) -> Report:
    """Return a report whose text for people has a bounded length."""
    if len(report.waiting_for) <= MOST_REASON:
        return report
    return msgspec.structs.replace(report, waiting_for=report.waiting_for[:MOST_REASON])


ENCODER = msgspec.msgpack.Encoder()
DOWN = msgspec.msgpack.Decoder(Down)
UP = msgspec.msgpack.Decoder(Up)
