"""Inquiries into rejections: the services that are found, the questions, and what is served meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xds.client import LISTEN, PODS, DeltaClient, http, tcp, world
from xds import ir
from xds.ads.attribution import CONFLICT, Attribution, Verdict, search
from xds.names import CDS, EDS, LDS, RDS, TRIAL
from xds.resources.snapshot import Change, Snapshot
from xds.resources.translation import SharedResource

NAMES = tuple("abcdefghijklmnop")
subsets = st.lists(st.sampled_from(NAMES), unique=True)
pairs = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)).filter(lambda two: two[0] != two[1]))


def asked(
    known: Sequence[str], suspects: Sequence[str], bad: Iterable[str], rivals: Iterable[tuple[str, str]] = ()
) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """Return what a search finds, and its questions; an Envoy rejects `bad`, and two rivals together."""
    wrong, pairs = set(bad), list(rivals)
    questions: list[tuple[str, ...]] = []

    def verdict(question: tuple[str, ...]) -> str | None:
        questions.append(question)
        together = [two for two in pairs if {*two} <= {*question}]
        rejected = sorted(wrong & {*question}) or together
        return f"rejected: {rejected}" if rejected else None

    found = search(known, suspects)
    question = next(found)
    while True:
        try:
            question = found.send(verdict(question))
        except StopIteration as stop:
            return stop.value, questions


def test_search_one_new_service_takes_three_questions() -> None:
    found, questions = asked(NAMES, ["new"], ["new"])
    assert found == {"new": "rejected: ['new']"}
    assert questions == [(*NAMES, "new"), NAMES, ("new",)]


def test_search_all_accepted_finds_no_service() -> None:
    assert asked(NAMES, ["new"], []) == ({}, [(*NAMES, "new")])


def test_search_all_rejected_finds_no_service() -> None:
    assert asked((), NAMES, NAMES)[0] == {}
    assert asked(NAMES, (), NAMES)[0] == {}


def test_search_known_services_rejected_are_suspected() -> None:
    assert asked(NAMES, ("new",), ["c"])[0] == {"c": "rejected: ['c']"}


def test_search_two_conflicting_services_finds_the_later() -> None:
    assert asked((), ("a", "b", "c"), [], [("c", "a")])[0] == {"c": CONFLICT}
    assert asked(("c",), ("a", "b"), [], [("c", "a")])[0] == {"a": CONFLICT}


@settings(max_examples=200, deadline=None)
@given(known=subsets, bad=subsets, rivals=pairs)
def test_search_many_services_asks_few_questions(
    known: list[str], bad: list[str], rivals: list[tuple[str, str]]
) -> None:
    suspects = [name for name in NAMES if name not in known]
    found, questions = asked(known, suspects, bad, rivals)
    assert len(set(questions)) == len(questions), "a question is asked once"
    assert len(questions) <= 3 + (len(found) or len(NAMES)) * (2 * math.ceil(math.log2(len(NAMES))) + 1)
    left = [name for name in NAMES if name not in found]
    if len(set(bad)) < len(NAMES):
        assert not {*bad} & {*left}
        assert not any({*two} <= {*left} for two in rivals)


class Stage:
    """A client, and an inquiry that its answers lead to."""

    def __init__(self, of: Snapshot, *services: str) -> None:
        self.world, self.attribution = of, Attribution(of)
        self.client = DeltaClient(of)
        self.client.joins(endpoints=services)

    def configure(self, *services: ir.Upstream) -> None:
        self.spread([self.world.configure(LISTEN, services)])
        for service in services:
            for name in self.world.route(service.name, PODS):
                self.client.stream.route(name)

    def spread(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.client.stream.change(change)

    def says(self, rejects: Iterable[str], because: str = "no") -> list[str]:
        """Answer all that is due, and reject what has one of these resources in it; return what was sent."""
        said = []
        while due := self.client.hears():
            for answer in due:
                said.append(str(answer))
                wrong = {*answer.names} & {*rejects}
                receipt = self.client.answers(answer, because if wrong else None)
                if receipt.verdict:
                    self.spread(self.attribution.on_verdict("envoy", receipt.verdict))
        return said


def test_stream_joint_nack_is_sent_again_in_halves() -> None:
    stage = Stage(world())
    stage.configure(*(tcp(name, 5000 + at) for at, name in enumerate("abcd")))
    said = [one for one in stage.says(["tcp/127.0.0.1:5002"]) if one.startswith("LDS")]
    ports = [f"tcp/127.0.0.1:{port}" for port in range(5000, 5004)]
    assert said == [
        f"LDS {' '.join(ports)}",
        f"LDS {' '.join(ports[:2])}",
        f"LDS {' '.join(ports[2:])}",
        f"LDS {ports[2]}",
        f"LDS {ports[3]}",
    ]
    assert list(stage.client.stream.types[LDS].rejections) == [ports[2]]
    assert stage.world.owner(LDS, ports[2]) == "c"
    assert stage.says([]) == [], "what is rejected alone is not sent again"


def test_stream_removal_nacked_with_others_is_sent_again() -> None:
    stage = Stage(world(tcp("a", 1), tcp("b", 2)), "a", "b")
    stage.configure(tcp("a", 1), tcp("c", 3))
    said = [one for one in stage.says(["tcp/127.0.0.1:3"]) if one.startswith("LDS")]
    assert said == ["LDS tcp/127.0.0.1:3 -tcp/127.0.0.1:2", "LDS -tcp/127.0.0.1:2"]


def test_inquiry_running_shared_resource_does_not_change() -> None:
    stage = Stage(world(http("a")), "a")
    stage.configure(http("a"), http("b"))
    before = stage.world.table(RDS).get("http")
    changes = stage.attribution.on_verdict("envoy", Verdict(RDS, {"http": "?"}, "no", ("http",)))
    assert [list(change.changed[LDS]) for change in changes] == [[TRIAL]]
    stage.spread(changes)
    stage.configure(http("a"), http("b"), http("c"))
    assert stage.world.table(RDS).get("http") is before
    assert stage.world.table(LDS).get(TRIAL)
    assert "c" in stage.world.table(CDS) and "c" in stage.world.table(EDS)
    stage.says([])
    assert stage.world.table(RDS).get("http") is not before
    assert stage.world.table(LDS).get(TRIAL) is None
    assert stage.world.selection.faults == {}


def test_inquiry_envoy_disconnects_ends_and_next_starts() -> None:
    stage = Stage(world(http("a"), http("b")), "a", "b")
    rejection = Verdict(RDS, {"http": "?"}, "no", ("http",))
    assert stage.attribution.on_verdict("one", rejection)
    assert stage.attribution.on_verdict("two", Verdict(LDS, {"tls": "?"}, "no", ("tls",))) == []
    stage.attribution.on_disconnect("one")
    assert stage.world.table(LDS).get(TRIAL) is None, "no service has a part of the TLS listener"
    assert stage.attribution.on_verdict("two", rejection)
    assert stage.world.table(LDS).get(TRIAL)


def test_inquiry_answer_of_other_envoy_does_not_count() -> None:
    stage = Stage(world(http("a"), http("b")), "a", "b")
    stage.attribution.on_verdict("one", Verdict(RDS, {"http": "?"}, "no", ("http",)))
    tried = stage.world.table(LDS).get(TRIAL)
    assert tried
    assert stage.attribution.on_verdict("two", Verdict(LDS, {TRIAL: tried.version}, "no", (TRIAL,))) == []
    assert stage.attribution.on_verdict("one", Verdict(LDS, {TRIAL: "old"}, "no", (TRIAL,))) == []
    assert stage.attribution.on_verdict("one", Verdict(LDS, {TRIAL: tried.version})), "accepted: it is over"
    assert stage.world.selection.faults == {}


def test_inquiry_finds_removed_service_ends_without_fault() -> None:
    stage = Stage(world(http("a")), "a")
    stage.spread(stage.attribution.on_verdict("envoy", Verdict(RDS, {"http": "?"}, "no", ("http",))))
    stage.configure(http("b"))
    stage.says([TRIAL])
    assert stage.world.selection.faults == {}
    assert stage.world.table(LDS).get(TRIAL) is None
    assert b"b.localhost" in stage.world.table(RDS)["http"].body


def test_inquiry_running_wake_changes_endpoints_only() -> None:
    stage = Stage(world(http("a"), http("b")), "a", "b")
    stage.spread(stage.attribution.on_verdict("envoy", Verdict(RDS, {"http": "?"}, "no", ("http",))))
    [asked] = stage.client.hears()
    for name in stage.world.route("a", PODS):
        stage.client.stream.route(name)
    assert [str(answer) for answer in stage.client.hears()] == ["EDS a"]
    assert asked.type_url == LDS and asked.names == (TRIAL,)


def test_envoy_service_left_out_keeps_its_endpoints() -> None:
    made = world(http("a"))
    ignoring = ir.Upstream("b", ir.ServiceProtocol.HTTP, ("b.localhost",), ignore=(ir.IgnoreMatch(("/x",)),))
    made.configure(LISTEN, [http("a"), ignoring])
    made.route("b", PODS)
    before = made.table(EDS).version
    made.selection.reject(made.selection.served, {"b": "no"})
    made.end_trial()
    assert made.selection.faults == {"b": "no"}
    assert list(made.table(EDS)) == ["a", "b"]
    made.configure(LISTEN, [http("a"), http("c"), ignoring])
    assert made.selection.faults == {"b": "no"}, "it is not tried again while it is the same"
    made.configure(LISTEN, [http("a"), http("b")])
    made.configure(LISTEN, [http("a"), ignoring])
    assert made.selection.faults == {}
    assert made.table(EDS).version == before


def test_attribution_late_ack_keeps_its_own_version() -> None:
    made = world(http("a"))
    accepted = made.table(RDS).get("http")
    assert accepted
    made.configure(LISTEN, [ir.Upstream("a", ir.ServiceProtocol.HTTP, ("a.localhost", "bad.localhost"))])
    made.accept(SharedResource.HOSTS, accepted.version)
    made.selection.reject(made.selection.served, {"a": "no"})
    made.end_trial()
    assert made.table(RDS).get("http") == accepted
