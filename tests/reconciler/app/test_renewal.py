"""When a program that is in use all the time is replaced by its new one, by what samples and holders say."""

from __future__ import annotations

from dataclasses import replace

from reconciler.app.renewal import Renewal
from reconciler.core.judge import Observed
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.core.traffic import Counters, EnvoyReading, Sample
from reconciler.engine.service import Service

SPEC = Spec(name="web", idle_after=10, drain_timeout=5)
ACTIVE = Record(State.Active, 0.0, "", 1, "127.64.0.1:1")


class Programs:
    """Recorded calls to the backend."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def outdated(self) -> frozenset[str]:
        return frozenset({"web"} - {"web" for asked in self.asked if asked == "restart"})

    def withdraw(self, service: str) -> None:
        self.asked.append("withdraw")

    def restore(self, service: str) -> None:
        self.asked.append("restore")

    def restart(self, service: str) -> None:
        self.asked.append("restart")


class Stage:
    """One service in use, whose program is seen to have changed at second 0."""

    def __init__(self, spec: Spec = SPEC) -> None:
        self.now, self.set_by = 0.0, 0.0
        self.programs = Programs()
        self.service = Service(spec, ACTIVE)
        envoys = frozenset({"envoy"})
        self.renewal = Renewal(
            lambda: self.now + self.set_by, lambda: self.now, self.programs, {"web": self.service}, lambda: envoys
        )
        self.sample(0, connections=3)

    def sample(self, at: float, connections: int | None) -> list[str]:
        """Envoy has so many connections open at that second; None: it does not answer. What was asked so far."""
        self.now = at
        self.renewal.look()
        counted = {"web": Counters(active_connections=connections or 0)}
        readings = {} if connections is None else {"envoy": EnvoyReading(at, counted)}
        self.renewal.sampled(Sample(at, readings))
        return self.programs.asked

    def sees(self, held: int | None, relayed: int | None = 0, acked_at: float | None = 10.5) -> None:
        self.service.seen = replace(Observed(), held=held, relayed=relayed, route_acked_at=acked_at)


def test_renewal_withdraws_after_idle_after_without_idleness() -> None:
    stage = Stage()
    assert stage.sample(9, connections=3) == []
    assert stage.sample(10, connections=3) == ["withdraw"]


def test_one_that_is_paused_or_asleep_is_let_be() -> None:
    assert Stage(replace(SPEC, paused=True)).sample(100, connections=3) == []
    stage = Stage()
    stage.service.record = replace(ACTIVE, state=State.ScaledToZero)
    assert stage.sample(100, connections=0) == []


def test_it_is_replaced_when_all_who_are_connected_are_held() -> None:
    stage = Stage()
    stage.sample(10, connections=3)
    stage.sees(held=2)
    assert stage.sample(11, connections=3) == ["withdraw"], "one is still with the old one"
    stage.sees(held=3)
    assert stage.sample(12, connections=3) == ["withdraw", "restart"]


def test_renewal_unknown_usage_restores_and_retries_later() -> None:
    stage = Stage()
    stage.sample(10, connections=3)
    stage.sees(held=3, acked_at=None)
    stage.sample(11, connections=3)
    stage.sees(held=3, relayed=1)
    stage.sample(12, connections=3)
    stage.sees(held=None, relayed=None)
    stage.sample(13, connections=0)
    stage.sees(held=3)
    assert stage.sample(14, connections=None) == ["withdraw"]
    assert stage.sample(15, connections=4) == ["withdraw", "restore"]
    assert stage.sample(24, connections=4) == ["withdraw", "restore"]
    assert stage.sample(25, connections=4) == ["withdraw", "restore", "withdraw"]


def test_it_is_given_up_before_those_who_wait_are_refused() -> None:
    stage = Stage(replace(SPEC, hold_timeout=4))
    stage.sample(10, connections=3)
    stage.sees(held=2)
    assert stage.sample(11, connections=3) == ["withdraw"]
    assert stage.sample(12, connections=3) == ["withdraw", "restore"]


def test_a_clock_that_is_set_hurries_and_delays_nothing() -> None:
    stage = Stage()
    stage.set_by = 3600.0
    assert stage.sample(9, connections=3) == []
    assert stage.sample(10, connections=3) == ["withdraw"]
    stage.set_by = -3600.0
    stage.sees(held=3, relayed=1)
    assert stage.sample(14, connections=3) == ["withdraw"]
    assert stage.sample(15, connections=3) == ["withdraw", "restore"]
