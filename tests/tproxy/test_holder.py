"""Any order of events: holds are bounded, and connections are released only over dials that succeeded.

A complete holder without its process: real sockets on both sides, and a real loop that runs after each step.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.tproxy.harness import reset
from tproxy.control.stream import Link
from tproxy.hold_queue import HoldQueue
from tproxy.holder import Holder
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop
from tproxy.io.tcp import KEEPALIVE_SECONDS
from tproxy.wire import Assignment, AssignmentUpdate, Go, Hold, HolderHello, Verdict

RUN_SECONDS = 0.003


def name_of(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname())


class Holding(RuleBasedStateMachine):
    """One hold address."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop(self.failed)
        self.entry = socket.create_server(("127.0.0.1", 0))
        self.pod = socket.create_server(("127.0.0.1", 0))
        self.pod.setblocking(False)
        self.refusing = socket.socket()
        self.refusing.bind(("127.0.0.1", 0))  # and never listens: a dial to it is refused
        self.holder = Holder(self.loop, Budget(1_000), HolderHello("h", "anyip"), None, KEEPALIVE_SECONDS)
        self.unused = self.holder.budget.used
        self.clients: list[socket.socket] = []
        self.dialled: list[socket.socket] = []
        self.arrived = self.released = 0
        self.endpoint = False
        self.service = "web"

    def failed(self, error: Exception) -> None:
        raise AssertionError("a callback failed") from error

    @initialize(max_held=st.integers(0, 3), protocol=st.sampled_from(["tcp", "http", "h2c"]))
    def begin(self, max_held: int, protocol: str) -> None:
        self.max_held, self.protocol = max_held, protocol
        self.say(Hold())

    def say(self, verdict: Verdict, hold_timeout: float = 60.0) -> None:
        said = Assignment(name_of(self.entry), self.service, self.protocol, verdict, self.max_held, hold_timeout)
        link = Link(lambda: None)
        self.holder.received(link, AssignmentUpdate(1, (said,), full=True))
        self.run()

    def run(self) -> None:
        self.loop.call_later(RUN_SECONDS, self.loop.stop)
        self.loop.run()
        with suppress(BlockingIOError):
            while True:
                self.dialled.append(self.pod.accept()[0])

    @rule()
    def somebody_comes(self) -> None:
        self.clients.append(socket.create_connection(self.entry.getsockname()))
        self.arrived += 1
        self.holder.accept(self.entry.accept()[0].detach())
        self.run()

    @rule(which=st.integers(0, 9))
    def somebody_gives_up(self, which: int) -> None:
        if self.clients:
            reset(self.clients.pop(which % len(self.clients)))
            self.run()

    @rule()
    def it_sleeps(self) -> None:
        self.endpoint = False
        self.say(Hold())

    @rule()
    def it_is_ready(self) -> None:
        self.endpoint = True
        self.say(Go((name_of(self.pod),)))

    @rule()
    def it_is_ready_and_not_reachable(self) -> None:
        self.endpoint = False
        self.say(Go((name_of(self.refusing),)))

    @rule()
    def address_gets_another_service(self) -> None:
        self.endpoint = False
        self.service += "x"
        self.say(Hold())

    @rule()
    def their_time_is_over(self) -> None:
        self.endpoint = False
        self.say(Hold(), hold_timeout=0.001)

    @property
    def queue(self) -> HoldQueue | None:
        hold_address = self.holder.addresses.get(name_of(self.entry))
        return hold_address.queue if hold_address else None

    @invariant()
    def holds_are_bounded(self) -> None:
        if queue := self.queue:
            assert 0 <= queue.held <= self.max_held

    @invariant()
    def everybody_is_accounted_for(self) -> None:
        if queue := self.queue:
            assert self.arrived == queue.held + queue.released + queue.gone + queue.refused.total()

    @invariant()
    def a_release_takes_a_dial_that_succeeded(self) -> None:
        if queue := self.queue:
            assert queue.released <= len(self.dialled)
            assert self.endpoint or queue.released == self.released
            self.released = queue.released

    def teardown(self) -> None:
        for sock in (*self.clients, *self.dialled):
            sock.close()
        for hold_address in self.holder.addresses.values():
            hold_address.refuse_all("draining")
        for _ in range(1_000):
            if not (self.holder.held or self.holder.relayed or self.holder.refuser.lingering):
                break
            self.run()
        assert self.holder.budget.used == self.unused, "every descriptor was given back"
        for sock in (self.entry, self.pod, self.refusing):
            sock.close()
        self.loop.close()


Holding.TestCase.settings = settings(
    max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestHolding = Holding.TestCase
