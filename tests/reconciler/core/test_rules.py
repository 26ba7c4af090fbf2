"""The rules of the design on one machine: the reconciler may restart between any two steps."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from reconciler.core.lifecycle import Stage
from reconciler.core.reasons import Blocker
from reconciler.core.spec import Spec, UsageUnit
from tests.fakes.simulation.checks import CheckedWorld
from tests.fakes.simulation.clients import NAME, NOT_CONFIGURED
from tests.fakes.simulation.rules import ANSWERS, LATE, SECONDS, Rules

SPEC = Spec(
    name=NAME, replicas=2, idle_after=6, wake_timeout=5, drain_timeout=4, hold_timeout=60, idle_by=UsageUnit.REQUESTS
)
BREAKS = {
    "holder": "stream",
    "stream": "stream",
    "envoys a": "start of a",
    "envoys b": "start of b",
    "envoys a b": "start of",
    "reconciler": "",
}
"""Faults, each with the part of the world that repairs it."""
REMOVED = ("refused", "drain timed out", NOT_CONFIGURED)
"""Ends of clients by a removal: they were held, or in use for all of `drainTimeout`."""


class MachineRules(Rules):
    """The rules, with the faults of one machine, and changes of its file."""

    spec = SPEC
    excused = (*Rules.excused, *REMOVED)
    ended_by_removal = REMOVED

    @initialize(
        phase=st.sampled_from(["asleep", "waking", "awake", "draining", "sampled", "rollout"]),
        seconds=SECONDS,
        in_use=st.booleans(),
        has_busy_check=st.sampled_from([False, False, True]),
        job=ANSWERS,
        late=LATE,
    )
    def begin(
        self, phase: str, seconds: int, in_use: bool, has_busy_check: bool, job: Blocker | None, late: str
    ) -> None:
        """Start in any phase, including those that random steps rarely reach."""
        world = self.world = CheckedWorld(replace(self.spec, has_busy_check=has_busy_check))
        world.all_goes_well(2)
        if phase == "asleep":
            return
        world.arrive("a")
        if phase == "waking":
            return
        world.all_goes_well(3)
        world.all_goes_well(min(seconds, 5))
        if in_use or phase == "rollout":
            world.arrive("b")
            world.all_goes_well(1, finishing=False)
        if phase == "awake":
            world.job = job
        if phase in ("draining", "sampled"):
            world.sleep()
        if phase == "sampled":
            self.all_acknowledge_and_a_sample_follows(0.2, False, late)
        if phase == "rollout":
            self._roll_out(in_use)

    def _roll_out(self, in_use: bool) -> None:
        """Change the program of a service that is used until its endpoints are withdrawn, and longer if `in_use`."""
        self.world.workload.change_program()
        for _ in range(12):
            if self.world.replica.lifecycles.stage(NAME) is not Stage.Withdrawn:
                self.world.all_goes_well(1, finishing=False)
        for client in () if in_use else self.world.served():
            self.world.finish(client)

    @rule(what=st.sampled_from(list(BREAKS)), seconds=st.sampled_from([0, 0, 1, 3, 8]), finishing=st.booleans())
    def something_breaks_for_a_while(self, what: str, seconds: int, finishing: bool) -> None:
        match what.split():
            case ["holder"]:
                self.world.holder_dies()
            case ["stream"]:
                self.world.holder_leaves()
            case ["envoys", *names]:
                for name in names:
                    self.world.envoy_dies(name)
            case ["reconciler"]:
                self.world.restart()
        self.world.all_goes_well(seconds, finishing, BREAKS[what])

    @rule()
    def somebody_changes_the_program(self) -> None:
        self.world.workload.change_program()

    @precondition(lambda self: self.world.spec)
    @rule(seconds=st.sampled_from([0, 0, 1, 3, 8]), finishing=st.booleans())
    def somebody_removes_the_service(self, seconds: int, finishing: bool) -> None:
        self.world.remove()
        self.world.all_goes_well(seconds, finishing)

    def restore(self) -> None:
        if self.world.spec is None:
            self.world.add_again()
        super().restore()


class MachineRulesByBytes(MachineRules):
    """The same rules for a service that may sleep while silent connections are open."""

    spec = replace(SPEC, idle_by=UsageUnit.BYTES)


TestRules = MachineRules.TestCase
TestRulesByBytes = MachineRulesByBytes.TestCase
TestRules.settings = TestRulesByBytes.settings = settings(
    max_examples=300, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
