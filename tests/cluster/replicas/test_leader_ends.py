"""The leader ends, or is frozen, in each state: nothing held is lost, nothing in flight is cut, and no wake ends."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.replicas.act import Act
from tests.cluster.replicas.scene import LEASE_SECONDS, STATES, Scene
from tests.e2e.harness import until

ENDS = {"killed": signal.SIGKILL, "stopped": signal.SIGTERM}
CASES = [*(("killed", state) for state in STATES), ("stopped", "Waking"), ("stopped", "Draining")]


@pytest.mark.parametrize(("how", "state"), CASES)
def test_another_one_leads(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, how: str, state: str) -> None:
    act = Act(scene, f"{how}-{state.lower()}", tmp_path, pool)
    act.bring(state)
    before = scene.leader()
    scene.ends(before, ENDS[how])
    meanwhile = act.ask("/meanwhile")
    try:
        until("another one leads", lambda: scene.leader() not in ("", before))
        act.answered()
        assert meanwhile.result().body.decode() == f"{act.name} /meanwhile\n"
    finally:
        scene.start(before)
    until("it is back", lambda: scene.is_ready(before))
    act.lives_on()


def test_one_that_was_frozen_puts_nothing_to_sleep(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    act = Act(scene, "frozen", tmp_path, pool)
    act.bring("Active")
    before = scene.leader()
    scene.command(act.name, "sleep")  # what it may have been about to do
    scene.tell(before, signal.SIGSTOP)
    until("another one leads", lambda: scene.leader() not in ("", before))
    after = scene.leader()
    scene.tell(before, signal.SIGCONT)
    end = time.monotonic() + 2 * LEASE_SECONDS
    while time.monotonic() < end:
        assert scene.wanted(act.name) == 1
        assert scene.leader() == after
    assert scene.world(before)["standing"]["leads"] is False
    act.answered()
    act.lives_on()


def test_a_wake_while_nobody_led_is_told_by_whoever_leads_next(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    act = Act(scene, "untold", tmp_path, pool)
    act.bring("ScaledToZero")
    before = scene.leader()
    scene.ends(before, signal.SIGKILL)
    meanwhile = act.ask("/meanwhile")
    try:
        until("another one leads", lambda: scene.leader() not in ("", before))
        after = scene.leader()
        assert meanwhile.result().status == 200
        until("its wake is told", lambda: (after, "WakeRequested") in scene.events(act.name))
    finally:
        scene.start(before)
    until("it is back", lambda: scene.is_ready(before))
