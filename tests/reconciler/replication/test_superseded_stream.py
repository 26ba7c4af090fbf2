"""Tests of a follower's stream that another one of the same replica, or the end of the term, has superseded."""

from __future__ import annotations

from reconciler.core.record import Record, State
from reconciler.replication.fleet import FollowerState
from reconciler.replication.messages import Fleet, FollowerMessage, Report
from tests.reconciler.replication.test_returned_states import HOLD, NOW, Cluster

OTHER = "10.0.0.2"
JOINED = Fleet({"two": ""}, ("two",))
REPORT = Report("web", 1, in_force=True)
MESSAGE = FollowerMessage(fleet=Fleet(), reports=(REPORT,), faults={"web": "rejected"})


class Streams(Cluster):
    """A leader with two streams of one follower, of which the later one counts."""

    def __init__(self) -> None:
        super().__init__(Fleet({"one": ""}, ("one",)))
        self.members = self.replication.members
        self.replication.share("web", Record(State.Active, NOW, "", 1, HOLD), fence=False)
        self.earlier = self.members.add_follower(OTHER, Fleet())
        self.later = self.members.add_follower(OTHER, JOINED)
        self.changes: list[dict[str, str]] = []
        self.replication.faults.on_change.append(lambda: self.changes.append(dict(self.replication.faults.all())))

    def knows(self, follower: FollowerState) -> tuple[dict[str, Report], dict[str, str]]:
        """Return the reports and the errors of a follower."""
        return follower.reports, follower.faults

    def members_by_state(self) -> tuple[set[str], set[str], set[str]]:
        """Return the followers and the Envoys that are connected, and the Envoys that are away."""
        ledger = self.members.ledger
        return set(ledger.connected()), set(ledger.envoys.connected), set(self.members.away())


def test_receive_of_superseded_stream_is_ignored() -> None:
    streams = Streams()
    streams.replication.receive(streams.earlier, MESSAGE)
    assert streams.knows(streams.earlier) == streams.knows(streams.later) == ({}, {})
    assert streams.members_by_state() == ({OTHER}, {"one", "two"}, set())
    assert streams.changes == []
    streams.replication.receive(streams.later, MESSAGE)
    assert streams.knows(streams.later) == ({"web": REPORT}, {"web": "rejected"})
    assert streams.members_by_state() == ({OTHER}, {"one"}, {"two"})
    assert streams.changes == [{"web": "rejected"}]


def test_receive_of_earlier_term_is_ignored() -> None:
    streams = Streams()
    streams.replication.follow()
    streams.replication.lead(NOW)
    streams.replication.share("web", Record(State.Active, NOW, "", 1, HOLD), fence=False)
    streams.changes.clear()
    streams.replication.receive(streams.later, MESSAGE)
    assert streams.knows(streams.later) == ({}, {})
    assert streams.changes == []
    assert streams.replication.faults.all() == {}


def test_end_of_superseded_stream_keeps_the_later() -> None:
    streams = Streams()
    streams.replication.remove_follower(streams.earlier)
    assert streams.members_by_state() == ({OTHER}, {"one", "two"}, set())
    assert streams.changes == []
    streams.replication.remove_follower(streams.later)
    assert streams.members_by_state() == (set(), {"one"}, {"two"})
    assert streams.changes == [{}]


def test_end_of_stream_after_the_term_changes_nothing() -> None:
    streams = Streams()
    streams.replication.follow()
    streams.replication.remove_follower(streams.later)
    assert streams.later.connected
    assert streams.changes == []
