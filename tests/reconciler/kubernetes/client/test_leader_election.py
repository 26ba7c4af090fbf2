"""Leader election with late, lost, and frozen messages and changed clocks, in any order of steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.kubernetes.client.leader_election import (
    SPARE_INDEXES,
    LeaderElection,
    LeaseRecord,
    LeaseTiming,
    ReadLease,
    WriteLease,
    parse_lease,
)

TERMS = LeaseTiming(duration=15, margin=5, every=2)
NAMES = ["a", "b", "c"]


@dataclass
class Server:
    """The API server's Lease, and only the rule that counts: a write names the version that it is about."""

    version: int = 0
    now: LeaseRecord | None = None

    def write(self, write: WriteLease, address: str) -> LeaseRecord | None:
        known = write.over.version if write.over else None
        if known != (self.now.version if self.now else None):
            return None
        self.version += 1
        spec = {"holderIdentity": write.holder, "leaseDurationSeconds": TERMS.duration}
        notes = {"zenvoy.dev/address": address, "zenvoy.dev/next-index": str(write.next_index)}
        raw: dict[str, Any] = {
            "metadata": {"resourceVersion": str(self.version), "annotations": notes},
            "spec": {**spec, "leaseTransitions": write.transitions},
        }
        self.now = parse_lease(raw)
        return self.now


@dataclass
class Call:
    """One call on its way there, or back."""

    todo: ReadLease | WriteLease
    began: float
    arrived: bool = False
    answer: LeaseRecord | None = None
    refused: bool = False


@dataclass
class Candidate:
    """One process, with a clock of its own: it started at another time than others'."""

    name: str
    offset: float
    election: LeaderElection = field(init=False)
    call: Call | None = None
    lost: list[Call] = field(default_factory=list)
    """Calls that it gave up, and that may yet arrive."""
    given: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.election = LeaderElection(self.name, TERMS)


class Elections(RuleBasedStateMachine):
    """Three candidates, each doing what the test chooses, at any pace."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 100.0
        self.server = Server()
        self.candidates = {name: Candidate(name, offset) for name, offset in zip(NAMES, (0, 5_000, 123.4), strict=True)}
        self.given: list[int] = []

    def clock(self, one: Candidate) -> float:
        return self.time + one.offset

    @rule(seconds=st.sampled_from([0.1, 0.5, 1, 2, 4, 5, 6, 9, 10, 11, 14.9, 15, 16, 60]))
    def time_passes(self, seconds: float) -> None:
        """Advance time; a candidate that takes no step meanwhile is frozen."""
        self.time += seconds

    @rule(name=st.sampled_from(NAMES))
    def begins(self, name: str) -> None:
        one = self.candidates[name]
        if one.call is None and (todo := one.election.act(self.clock(one))):
            one.call = Call(todo, self.clock(one))

    @rule(name=st.sampled_from(NAMES))
    def arrives(self, name: str) -> None:
        self._arrive(self.candidates[name], self.candidates[name].call)

    def _arrive(self, one: Candidate, call: Call | None) -> None:
        if call is None or call.arrived:
            return
        call.arrived = True
        if isinstance(call.todo, ReadLease):
            call.answer = self.server.now
        else:
            call.answer = self.server.write(call.todo, one.name)
            call.refused = call.answer is None

    @rule(name=st.sampled_from(NAMES))
    def hears(self, name: str) -> None:
        one = self.candidates[name]
        call, now = one.call, self.clock(one)
        if call is None or not call.arrived:
            return
        one.call = None
        if isinstance(call.todo, ReadLease):
            one.election.read(now, call.answer)
        elif call.answer:
            one.election.wrote(call.began, now, call.todo, call.answer)
        else:
            one.election.refused(now)

    @rule(name=st.sampled_from(NAMES))
    def gives_up(self, name: str) -> None:
        """No answer: whether the call arrived, or will, it does not know."""
        one = self.candidates[name]
        if one.call:
            one.lost.append(one.call)
            one.call = None
            one.election.failed(self.clock(one))

    @precondition(lambda self: any(one.lost for one in self.candidates.values()))
    @rule(name=st.sampled_from(NAMES))
    def arrives_after_all(self, name: str) -> None:
        one = self.candidates[name]
        if one.lost:
            self._arrive(one, one.lost.pop(0))

    @rule(name=st.sampled_from(NAMES), arrives=st.booleans())
    def ends(self, name: str, arrives: bool) -> None:
        """It releases what it has, and a new process of the same name starts."""
        one = self.candidates[name]
        write = one.election.release()
        assert not one.election.valid(self.clock(one))
        if write and arrives:
            self._arrive(one, Call(write, self.clock(one)))
        self._start_again(one)

    @rule(name=st.sampled_from(NAMES))
    def is_killed(self, name: str) -> None:
        self._start_again(self.candidates[name])

    def _start_again(self, one: Candidate) -> None:
        """Replace the candidate by a new process of the same name; its calls in flight are lost."""
        one.call, one.lost, one.election = None, [], LeaderElection(one.name, TERMS)

    @rule(name=st.sampled_from(NAMES), many=st.sampled_from([1, 3, 40]))
    def allocates(self, name: str, many: int) -> None:
        one = self.candidates[name]
        for _ in range(many):
            index = one.election.next_index(self.clock(one))
            if index is not None:
                self.given.append(index)

    @rule()
    def somebody_touches_it(self) -> None:
        """Another version without another holder: a sign of life is taken for one, at worst."""
        if self.server.now:
            self.server.version += 1
            raw = {**self.server.now.raw}
            raw["metadata"] = {**raw["metadata"], "resourceVersion": str(self.server.version)}
            self.server.now = parse_lease(raw)

    @rule(seconds=st.sampled_from([2.0, 20.0]))
    def all_goes_well(self, seconds: float) -> None:
        until = self.time + seconds
        while self.time < until:
            for name in NAMES:
                for _ in range(4):
                    self.begins(name)
                    self.arrives(name)
                    self.hears(name)
            self.time += 0.5
            self.at_most_one_leads()

    @invariant()
    def at_most_one_leads(self) -> None:
        leaders = [one.name for one in self.candidates.values() if one.election.valid(self.clock(one))]
        assert len(leaders) <= 1
        for name in leaders:
            assert self.server.now
            assert self.server.now.holder == name

    @invariant()
    def no_index_is_given_twice(self) -> None:
        assert len(set(self.given)) == len(self.given)

    def teardown(self) -> None:
        """Assert that a candidate leads in the end, and has indexes."""
        self.all_goes_well(40.0)
        (leader,) = [one for one in self.candidates.values() if one.election.valid(self.clock(one))]
        assert leader.election.left() >= SPARE_INDEXES / 2
        for one in self.candidates.values():
            assert one is leader or one.election.leader() == leader.name


TestElections = Elections.TestCase
TestElections.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)


def elected(
    now: float, holder: str = "other", version: str = "1", duration: float = 15, **notes: str
) -> LeaderElection:
    """A candidate that has just seen this Lease for the first time."""
    election = LeaderElection("me", TERMS)
    election.read(now, found(holder, version, duration, **notes))
    return election


def found(holder: str, version: str, duration: float = 15, **notes: str) -> LeaseRecord:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "renewTime": "1970-01-01T00:00:00.000000Z"}
    annotations = {f"zenvoy.dev/{key.replace('_', '-')}": value for key, value in notes.items()}
    return parse_lease({"metadata": {"resourceVersion": version, "annotations": annotations}, "spec": spec})


def test_election_held_lease_blocks_for_its_duration() -> None:
    election = elected(100.0)
    assert isinstance(election.act(114.9), ReadLease)
    assert isinstance(election.act(115.0), WriteLease)


def test_election_changed_lease_is_valid() -> None:
    election = elected(100.0)
    election.read(110.0, found("other", "2"))
    assert isinstance(election.act(120.0), ReadLease)
    assert isinstance(election.act(125.0), WriteLease)


def test_election_longer_duration_counts() -> None:
    election = elected(100.0, duration=60)
    assert isinstance(election.act(159.0), ReadLease)
    assert isinstance(election.act(160.0), WriteLease)


def test_election_released_lease_is_acquired_at_once() -> None:
    election = elected(100.0, holder="")
    todo = election.act(100.0)
    assert isinstance(todo, WriteLease)
    assert (todo.holder, todo.acquires) == ("me", True)


def test_election_term_starts_when_the_write_is_sent() -> None:
    election = elected(100.0, holder="")
    todo = election.act(100.0)
    assert isinstance(todo, WriteLease)
    election.wrote(100.0, 103.0, todo, found("me", "2"))
    assert election.valid(109.9)
    assert not election.valid(110.0)
    assert election.since == 100.0


def test_election_error_neither_ends_nor_extends_term() -> None:
    election = elected(100.0, holder="")
    todo = election.act(100.0)
    assert isinstance(todo, WriteLease)
    election.wrote(100.0, 100.0, todo, found("me", "2"))
    for now in (102.0, 104.0, 106.0, 109.0):
        election.failed(now)
        assert election.valid(now)
    assert not election.valid(110.0)


def test_election_deleted_lease_reuses_no_index() -> None:
    election = elected(100.0, holder="", next_index="500")
    election.read(101.0, None)
    todo = election.act(101.0)
    assert isinstance(todo, WriteLease)
    assert todo.first_index == 500
    other = LeaderElection("me", TERMS, unused=lambda: 321)
    other.read(100.0, None)
    todo = other.act(100.0)
    assert isinstance(todo, WriteLease)
    assert todo.first_index == 321


def test_election_reserves_expected_indexes() -> None:
    election = LeaderElection("me", TERMS, wanted=lambda: 10_000)
    election.read(100.0, found("", "1", next_index="7"))
    todo = election.act(100.0)
    assert isinstance(todo, WriteLease)
    election.wrote(100.0, 100.0, todo, found("me", "2", next_index=str(todo.next_index)))
    given = [election.next_index(100.0) for _ in range(10_000)]
    assert given == list(range(7, 10_007))


def test_election_unused_indexes_are_returned() -> None:
    election = elected(100.0, holder="", next_index="7")
    todo = election.act(100.0)
    assert isinstance(todo, WriteLease)
    election.wrote(100.0, 100.0, todo, found("me", "2", next_index=str(todo.next_index)))
    election.next_index(100.0)
    released = election.release()
    assert released
    assert (released.holder, released.next_index) == ("", 8)
