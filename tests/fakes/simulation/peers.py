"""The simulated peer streams between a leader and its followers, as in `leader` and `follower` of the product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from reconciler.replication.fleet import FollowerState
from reconciler.replication.messages import Fleet, FollowerMessage, RecordUpdate, Report, intersection
from tests.fakes.simulation.clients import NAME

if TYPE_CHECKING:
    from tests.fakes.simulation.replica import Replica

NOTICE = 2.0
"""Seconds after which both ends of a stream that is cut notice it."""


@dataclass
class Link:
    """A peer stream; `up` and `down` have the undelivered messages."""

    leader: str
    follower: str
    place: FollowerState | None = None
    up: list[Callable[[], None]] = field(default_factory=list)
    down: list[Callable[[], None]] = field(default_factory=list)
    reported: Fleet = field(default_factory=Fleet)
    cut_at: float | None = None
    """Time since which nothing is delivered; each end notices it separately."""


class PeerStreams:
    """The peer streams of a cluster. Nothing is delivered before the test calls `deliver`."""

    def __init__(self, replicas: Mapping[str, Replica], now: Callable[[], float]) -> None:
        self._replicas, self._now = replicas, now
        self.links: list[Link] = []

    def of(self, name: str) -> list[Link]:
        """Return the streams of a replica."""
        return [link for link in self.links if name in (link.leader, link.follower)]

    def connect(self, follower: Replica, leader: str) -> None:
        link = Link(leader, follower.name)
        self.links.append(link)
        follower.link = link
        follower.replication.updates.latest.clear()
        fleet = link.reported = follower.replication.members.fleet
        follower.has_report = True
        link.up.append(lambda: self._greeted(link, fleet))

    def _greeted(self, link: Link, fleet: Fleet) -> None:
        leader = self._replicas[link.leader]
        members = leader.replication.members
        if not (members.leads and link in self.links):
            self.end(link)
            return
        link.place = members.add_follower(link.follower, fleet)
        if NAME in leader.replication.updates.latest:
            self.send_record(leader)
        self.send_fleet(leader)

    def _followers(self, leader: Replica) -> list[Link]:
        return [link for link in self.links if link.leader == leader.name and link.place is not None]

    def send_record(self, leader: Replica) -> None:
        update = leader.replication.updates.latest.get(NAME)
        for link in self._followers(leader):
            link.down.append(partial(self._updated, link, update))

    def send_fleet(self, leader: Replica) -> None:
        fleet = leader.replication.members.ledger.fleet()
        for link in self._followers(leader):
            link.down.append(partial(self._got_fleet, link, fleet))

    def _updated(self, link: Link, update: RecordUpdate | None) -> None:
        follower = self._replicas[link.follower]
        if follower.link is link:
            follower.adopt(update)

    def _got_fleet(self, link: Link, fleet: Fleet) -> None:
        follower = self._replicas[link.follower]
        if follower.link is link:
            follower.replication.members.memory = fleet

    def flush(self, follower: Replica) -> None:
        """Send the due messages of a follower, if there is a stream."""
        link = follower.link
        if follower.is_frozen or link is None or not follower.has_report:
            return
        fleet, report = follower.replication.members.fleet, follower.replication.report(NAME)
        follower.has_report = False
        stayed, link.reported = intersection(link.reported, fleet), fleet
        link.up.append(lambda: self._reported(link, stayed, report))
        link.up.append(lambda: self._reported(link, fleet, None))

    def _reported(self, link: Link, fleet: Fleet, report: Report | None) -> None:
        if link.place is not None:
            message = FollowerMessage(fleet=fleet, reports=() if report is None else (report,))
            self._replicas[link.leader].replication.receive(link.place, message)

    def deliver(self, up: bool, many: int = 1) -> None:
        """Deliver the first messages of each stream, to leaders or to followers."""
        for link in list(self.links):
            for _ in range(many):
                queue, to = (link.up, link.leader) if up else (link.down, link.follower)
                if queue and link.cut_at is None and not self._replicas[to].is_frozen:
                    queue.pop(0)()

    def cut(self, name: str | None = None) -> None:
        """Stop delivery on the streams of a replica, or on all, before either end notices."""
        for link in self.of(name) if name else self.links:
            link.cut_at = link.cut_at or self._now()

    def end(self, link: Link) -> None:
        """End a stream; both ends learn of it, a frozen one later."""
        if link in self.links:
            self.links.remove(link)
            for name in (link.leader, link.follower):
                replica = self._replicas[name]
                replica.deliver(partial(self._ended, link, replica))

    def _ended(self, link: Link, replica: Replica) -> None:
        if replica.name == link.leader and link.place is not None:
            replica.replication.remove_follower(link.place)
        if replica.link is link:
            replica.link, replica.lost_at = None, self._now()

    def notice_cuts(self) -> None:
        """End the streams that have been cut for long enough."""
        for link in list(self.links):
            if link.cut_at is not None and self._now() - link.cut_at >= NOTICE:
                self.end(link)
