"""Tests of the tables of the lifecycle: every state and event, against tables written from the design."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from reconciler.core.lifecycle import (
    LIFECYCLE,
    NONE,
    Block,
    Instant,
    Lifecycle,
    LifecycleEvent,
    Stage,
    TerminatingEndpoints,
    advance,
)
from reconciler.core.machine import UnlistedEvent

# A row per event and a column per stage: the next stage; `=` for no change; `!` for a pair that is an error of the
# caller.
STAGES = {
    "C": Stage.Current,
    "O": Stage.Outdated,
    "W": Stage.Withdrawn,
    "P": Stage.Replacing,
    "D": Stage.Deleting,
    "R": Stage.Removed,
    "E": Stage.Ended,
}
EXPECTED = """
                     C  O  W  P  D  R  E
  ServiceConfigured  =  =  =  =  C  C  !
  ServiceRemoved     R  R  R  R  R  =  !
  DeletionRequested  D  D  D  D  =  D  !
  ProgramChanged     O  =  =  =  !  !  !
  ProgramCurrent     =  C  C  C  !  !  !
  RolloutBecameDue   !  W  !  !  !  !  !
  ConnectionsEnded   !  !  P  !  !  !  !
  RolloutTimedOut    !  !  O  !  !  !  !
  UsesCounted        !  !  !  !  !  =  !
  RemovalDrained     !  !  !  !  !  E  !
  RemovalTimedOut    !  !  !  !  !  E  !
"""
BEFORE, NOW = Instant(1000.0, 100.0), Instant(1007.0, 107.0)
OLD, NEW = "10.0.0.1:80", "10.0.0.2:80"


@dataclass(frozen=True)
class Case:
    """A cell of a table; `target` is None for an error of the caller."""

    source: Stage
    event: LifecycleEvent
    target: Stage | None

    def __str__(self) -> str:
        return f"{self.source}-{self.event}"


def cases() -> list[Case]:
    found = []
    for line in EXPECTED.strip("\n").splitlines()[1:]:
        name, *cells = line.split()
        for (letter, source), cell in zip(STAGES.items(), cells, strict=True):
            target = None if cell == "!" else STAGES[letter if cell == "=" else cell]
            found.append(Case(source, LifecycleEvent(name), target))
    return found


CASES = cases()


def test_expected_table_covers_every_stage_and_event() -> None:
    assert {(case.source, case.event) for case in CASES} == set(itertools.product(Stage, LifecycleEvent))


def test_table_lists_each_pair_once() -> None:
    listed = [(stage, event) for stages, event, _ in LIFECYCLE for stage in stages]
    assert len(listed) == len(set(listed))
    assert set(listed) == {(case.source, case.event) for case in CASES if case.target}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_advance_for_every_stage_and_event_matches(case: Case) -> None:
    before = Lifecycle(case.source, BEFORE, uses=3)
    if case.target is None:
        with pytest.raises(UnlistedEvent, match=f"{case.event} is not listed for {case.source}"):
            advance(before, case.event, NOW)
        return
    after = advance(before, case.event, NOW, uses=7)
    if case.target is not case.source:
        assert after == Lifecycle(case.target, NOW)
    elif case.event is LifecycleEvent.UsesCounted:
        assert after == Lifecycle(before.stage, BEFORE, uses=7)
    else:
        assert after is before


def test_advance_with_same_uses_returns_same_object() -> None:
    counted = Lifecycle(Stage.Removed, BEFORE, uses=7)
    assert advance(counted, LifecycleEvent.UsesCounted, NOW, uses=7) is counted


@pytest.mark.parametrize(("source", "target"), list(itertools.product(Block, Block)))
def test_blocked_takes_new_endpoints_if_the_block_begins(source: Block, target: Block) -> None:
    after = TerminatingEndpoints(source, frozenset({OLD})).blocked(target, (NEW,))
    assert after.block is target
    begins = source is Block.Lifted and target is not Block.Lifted
    assert after.endpoints == {NEW if begins else OLD}


@pytest.mark.parametrize("source", Block)
def test_observed_zero_ends_the_block_of_every_endpoint(source: Block) -> None:
    after = TerminatingEndpoints(source, frozenset({OLD})).observed(0, (OLD,))
    assert after.block is (Block.Marked if source is Block.Every else source)
    assert after.endpoints == {OLD}


def test_endpoints_after_scale_down_are_unusable_until_zero() -> None:
    asleep = TerminatingEndpoints().blocked(Block.Every, (OLD,))
    assert asleep.usable((OLD,)) == ()
    late = asleep.observed(1, (OLD, NEW))
    assert late.usable((OLD, NEW)) == (), "an informer may show pods of the earlier scale late"
    zero = late.observed(0, (OLD, NEW))
    assert zero.usable((OLD, NEW, "10.0.0.3:80")) == ("10.0.0.3:80",)


def test_endpoint_with_address_of_ended_one_is_usable() -> None:
    zero = TerminatingEndpoints().blocked(Block.Marked, (OLD,))
    assert zero.observed(1, (OLD,)).usable((OLD,)) == ()
    assert zero.observed(1, ()).observed(1, (OLD,)).usable((OLD,)) == (OLD,)


def test_restored_endpoints_are_used_without_another() -> None:
    restored = TerminatingEndpoints().blocked(Block.Marked, (OLD,)).blocked(Block.Lifted, (OLD,))
    assert restored.usable((OLD,)) == (OLD,)
    assert restored.usable((OLD, NEW)) == (NEW,)
    assert restored.observed(1, (NEW,)).endpoints is NONE


def test_zero_reached_without_scale_down_blocks_nothing() -> None:
    assert TerminatingEndpoints().observed(0, (OLD,)).usable((OLD,)) == (OLD,)
