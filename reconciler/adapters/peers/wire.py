"""The peer stream: what a follower and the leader tell each other, and nothing else.

One bidirectional gRPC stream a follower, at `METHOD`, on the leader's port. Each message is one msgspec struct in
MessagePack. Fields are only ever added, at the end and with a default: replicas of two releases run side by side.
"""

from __future__ import annotations

import msgspec

from reconciler.core.record import Record

SERVICE = "zenvoy.v1.Peer"
METHOD = f"/{SERVICE}/Stream"


class Fleet(msgspec.Struct, frozen=True, array_like=True):
    """Who is connected; from the leader: who is known, to any replica, or was lately."""

    envoys: dict[str, str] = {}
    """By node id, `ip:port` where its statistics can be read, empty when it does not say."""
    holders: tuple[str, ...] = ()


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

    service: str
    version: int
    """Echoed in `Report.version`; grows with each change of any service."""
    record: Record
    fence: bool = False
    """Whether followers leave the record as it is until the next word."""
    cause: str = ""
    """The name of the event that brought the record's state about, for people; empty when that is not known."""


class Down(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """From the leader. A stream begins with all services, in several messages."""

    words: tuple[Word, ...] = ()
    removed: tuple[str, ...] = ()
    whole: bool = False
    """All services were named since the stream began: what was not is no more."""
    fleet: Fleet | None = None


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first thing that a follower says."""

    replica: str
    """Its IP address, as the reconciler's EndpointSlices name it."""


class Report(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """All that a follower knows of one service, as totals; times are seconds since the epoch."""

    service: str
    version: int
    in_force: bool = False
    """Whether the record of that version is in force at all of the follower's Envoys and holders, and stays so."""
    waiting_for: str = ""
    held: int | None = 0
    """None while not known."""
    relayed: int | None = 0
    released: int = 0
    refused: int = 0
    gone: int = 0
    held_since: float | None = None
    peer: str | None = None
    first_byte_at: float | None = None
    refused_by: dict[str, int] = {}
    via: str | None = None


class Up(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """From a follower. The first of a stream has its hello and its fleet."""

    hello: Hello | None = None
    fleet: Fleet | None = None
    reports: tuple[Report, ...] = ()


ENCODER = msgspec.msgpack.Encoder()
DOWN = msgspec.msgpack.Decoder(Down)
UP = msgspec.msgpack.Decoder(Up)
