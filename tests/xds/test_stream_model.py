"""Any sequence of changes and acknowledgements, against a model of Envoy.

The model applies responses in order, asks for endpoints and routes as Envoy does, and rejects some of both. After every
step, no route leads to a cluster that the client does not have or that has no endpoints, and nothing is acknowledged
that it has not applied. A wake or a sleep alone changes endpoints only. In the end, the client has all of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xds.client import HELD, LISTEN, PODS, Answer, Client, DeltaClient, SotwClient, http, tcp
from xds import ir
from xds.names import CDS, EDS, LDS, ORDER, RDS
from xds.resources.snapshot import Snapshot

NAMES = ("a", "b")
CHOICES = {
    name: (
        http(name),
        ir.Upstream(name, ir.ServiceProtocol.H2C, (f"{name}.localhost",)),
        tcp(name, 5000 + i),
        replace(http(name), listen=ir.SocketAddress("127.0.0.1", 5000 + i), ignore=(ir.IgnoreMatch(("/",)),)),
    )
    for i, name in enumerate(NAMES)
}
configurations = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3))
steps = st.one_of(
    st.tuples(st.just("configure"), configurations),
    st.tuples(st.just("route"), st.tuples(st.sampled_from(NAMES), st.sampled_from([HELD, PODS, ()]))),
    st.tuples(st.just("wake"), st.tuples(st.sampled_from(NAMES), st.sampled_from([HELD, PODS]))),
    st.tuples(st.just("take"), st.sampled_from([True, True, False])),
    st.tuples(st.just("flush"), st.none()),
    st.tuples(st.just("reconnect"), st.none()),
)


class Model:
    """An Envoy with its world, and the server's stream to it."""

    def __init__(self, kind: type[DeltaClient] | type[SotwClient]) -> None:
        self.kind = kind
        self.world = Snapshot()
        self.world.configure(LISTEN, ())
        self.has: dict[str, dict[str, str]] = {type_url: {} for type_url in ORDER}
        self.leads_to: frozenset[str] = frozenset()
        self.rejected: set[str] = set()
        self.connect()

    def connect(self) -> None:
        self.client: Client = self.kind(self.world)
        self.waiting: deque[Answer] = deque()
        for type_url in ORDER:
            self.ask(type_url, *self.names(type_url), has=self.has[type_url])

    def names(self, type_url: str) -> tuple[str, ...]:
        return {EDS: tuple(self.has[CDS]), RDS: ("http",)}.get(type_url, ())

    def ask(self, type_url: str, *names: str, drops: tuple[str, ...] = (), has: dict[str, str] | None = None) -> None:
        if type_url in (EDS, RDS) and not names and not drops:
            return
        if isinstance(self.client, DeltaClient):
            self.waiting += self.client.asks(type_url, *names, drops=drops, has=has)
        elif isinstance(self.client, SotwClient):
            self.waiting += self.client.asks(type_url, *self.names(type_url), nonce="" if has is not None else None)

    def configure(self, chosen: dict[str, int]) -> None:
        services = [CHOICES[name][which] for name, which in chosen.items()]
        self.client.stream.change(self.world.configure(LISTEN, services))
        for name in chosen:
            if name not in self.world.table(EDS):
                self.route((name, HELD))

    def route(self, to: tuple[str, tuple[ir.SocketAddress, ...]]) -> None:
        if to[0] in self.world and self.world.route(*to):
            self.client.stream.route(to[0])

    def wake(self, to: tuple[str, tuple[ir.SocketAddress, ...]]) -> None:
        self.flush()  # what else is due
        due = len(self.waiting)
        self.route(to)
        self.flush()
        assert {answer.type_url for answer in list(self.waiting)[due:]} <= {EDS}

    def flush(self, _: None = None) -> None:
        self.waiting += self.client.hears()

    def reconnect(self, _: None = None) -> None:
        self.connect()

    def take(self, accept: bool = True) -> None:
        """Apply the next response, or reject it if it has endpoints or routes."""
        if not self.waiting:
            return
        answer = self.waiting.popleft()
        if not accept and answer.type_url in (EDS, RDS):
            self.rejected.update(answer.names)
            self.client.answers(answer, "no")
            return
        self.apply(answer)
        self.client.answers(answer)
        self.check()

    def apply(self, answer: Answer) -> None:
        had = set(self.has[CDS])
        if isinstance(self.client, SotwClient) and answer.type_url in (CDS, LDS):
            self.has[answer.type_url].clear()
        self.has[answer.type_url].update(answer.versions)
        for name in answer.removed:
            self.has[answer.type_url].pop(name, None)
        if answer.type_url == RDS:
            self.leads_to = answer.leads_to
            assert self.leads_to <= self.has[EDS].keys() | self.rejected
        if answer.type_url == CDS:
            new, gone = tuple(self.has[CDS].keys() - had), tuple(had - self.has[CDS].keys())
            for name in gone:
                self.has[EDS].pop(name, None)
            self.ask(EDS, *new, drops=gone)

    def check(self) -> None:
        assert self.leads_to <= self.has[CDS].keys()
        on_their_way = {name for answer in self.waiting if answer.type_url == EDS for name in answer.names}
        for name in NAMES:
            if self.client.stream.types[EDS].acked_at(name) is not None:
                present = self.world.table(EDS).get(name)
                assert present is not None and self.has[EDS].get(name) == present.version
                assert name not in on_their_way

    def settle(self) -> None:
        for _ in range(100):
            self.flush()
            if not self.waiting:
                return
            while self.waiting:
                self.take()
        raise AssertionError("it goes round in circles")


@pytest.mark.parametrize("kind", [DeltaClient, SotwClient])
@settings(max_examples=25, deadline=None)
@given(script=st.lists(steps, max_size=20))
def test_stream_any_script_ends_with_the_whole_snapshot(
    kind: type[DeltaClient] | type[SotwClient], script: list[tuple[str, object]]
) -> None:
    model = Model(kind)
    for step, argument in script:
        getattr(model, step)(argument)
    model.settle()
    # What was rejected is not sent again until it changes.
    for chosen in ({"a": 1}, {"a": 0, "b": 0}):
        model.configure(chosen)
        for name in NAMES:
            model.route((name, (ir.SocketAddress("10.9.9.9", len(chosen)),)))
        model.settle()
    for type_url in ORDER:
        table = model.world.table(type_url)
        present = {name: resource.version for name in table if (resource := table.get(name))}
        assert model.has[type_url] == present, type_url
    assert all(model.client.stream.types[EDS].acked_at(name) for name in model.world.table(EDS))
