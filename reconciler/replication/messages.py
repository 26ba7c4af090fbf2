"""Messages of the peer stream, between the leader and a follower.

Each follower opens one bidirectional gRPC stream to the leader, at `METHOD`. A message is one msgspec struct in
MessagePack. Fields are only ever added, at the end and with a default, because replicas of two releases run side by
side. Every field has bounds, and the decoder rejects a message that exceeds one.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reconciler.core.record import Record

SERVICE = "zenvoy.v1.Peer"
METHOD = f"/{SERVICE}/Stream"
MAX_ENTRIES = 20_000
"""Services, Envoys or holders in one message; twice the supported number."""
MAX_TEXT_LENGTH = 500
"""Characters in a text for people that a follower sends. A longer text from an older release is cut."""

Name = Annotated[str, Meta(max_length=256)]
ServiceName = Annotated[str, Meta(max_length=400)]
AddressText = Annotated[str, Meta(max_length=64, pattern=r"^[0-9A-Za-z_.:%\[\]-]*$")]
Total = Annotated[int, Meta(ge=0, le=2**53)]
Timestamp = Annotated[float, Meta(ge=0, le=4_102_444_800)]
"""Seconds since the epoch, until the year 2100."""


class Fleet(msgspec.Struct, frozen=True, array_like=True):
    """The connected Envoys and holders. The leader's has those of all replicas, and those that left recently."""

    envoys: Annotated[dict[Name, AddressText], Meta(max_length=MAX_ENTRIES)] = {}
    """By node id, the `ip:port` of the Envoy's statistics; empty if it does not announce one."""
    holders: Annotated[tuple[Name, ...], Meta(max_length=MAX_ENTRIES)] = ()


def intersection(one: Fleet, other: Fleet) -> Fleet:
    """Return the members of both."""
    envoys = {node: stats for node, stats in one.envoys.items() if other.envoys.get(node) == stats}
    return Fleet(envoys, tuple(holder for holder in one.holders if holder in other.holders))


def union(one: Fleet, other: Fleet) -> Fleet:
    """Return the members of either. If both name an Envoy, its address is that of `other`."""
    return Fleet(one.envoys | other.envoys, tuple(sorted({*one.holders, *other.holders})))


def difference(one: Fleet, other: Fleet) -> Fleet:
    """Return the members of `one` that `other` does not have."""
    envoys = {node: stats for node, stats in one.envoys.items() if node not in other.envoys}
    return Fleet(envoys, tuple(holder for holder in one.holders if holder not in other.holders))


class RecordUpdate(msgspec.Struct, frozen=True, array_like=True):
    """The leader's record of one service."""

    service: ServiceName
    version: Total
    """Grows with each change of any service. A `Report` repeats it."""
    record: Record
    fence: bool = False
    """Followers must not change the record until the next update."""
    cause: str = ""
    """The name of the event that led to the record's state, for people; empty if it is unknown."""


class LeaderMessage(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A message from the leader. A stream starts with the records of all services, in several messages."""

    updates: Annotated[tuple[RecordUpdate, ...], Meta(max_length=MAX_ENTRIES)] = ()
    removed: Annotated[tuple[ServiceName, ...], Meta(max_length=MAX_ENTRIES)] = ()
    complete: bool = False
    """The stream has named all services. A follower drops every other service."""
    fleet: Fleet | None = None


class FollowerHello(msgspec.Struct, frozen=True, array_like=True):
    """A follower's introduction, in its first message."""

    replica: AddressText
    """Its IP address, as in the EndpointSlices of the reconciler."""


class Report(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A follower's observations of one service. Counts are totals; times are seconds since the epoch."""

    service: ServiceName
    version: Total
    in_force: bool = False
    """True if every Envoy and holder of the follower has applied the record of that version."""
    waiting_for: Annotated[str, Meta(max_length=65_536)] = ""
    held: Total | None = 0
    """None if it is unknown; so for `relayed`."""
    relayed: Total | None = 0
    released: Total = 0
    refused: Total = 0
    gone: Total = 0
    held_since: Timestamp | None = None
    peer: AddressText | None = None
    first_byte_at: Timestamp | None = None
    refused_by: Annotated[dict[Annotated[str, Meta(max_length=32)], Total], Meta(max_length=16)] = {}
    via: Name | None = None


class FollowerMessage(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A message from a follower. The first one has its hello and its fleet."""

    hello: FollowerHello | None = None
    fleet: Fleet | None = None
    reports: Annotated[tuple[Report, ...], Meta(max_length=MAX_ENTRIES)] = ()
    faults: (
        Annotated[dict[ServiceName, Annotated[str, Meta(max_length=MAX_TEXT_LENGTH)]], Meta(max_length=MAX_ENTRIES)]
        | None
    ) = None
    """By service, the error with which the follower's Envoys reject it. None: no change."""


def shortened(report: Report) -> Report:
    """Return the report with its text for people cut to `MAX_TEXT_LENGTH`."""
    if len(report.waiting_for) <= MAX_TEXT_LENGTH:
        return report
    return msgspec.structs.replace(report, waiting_for=report.waiting_for[:MAX_TEXT_LENGTH])


ENCODER = msgspec.msgpack.Encoder()
LEADER_DECODER = msgspec.msgpack.Decoder(LeaderMessage)
FOLLOWER_DECODER = msgspec.msgpack.Decoder(FollowerMessage)
