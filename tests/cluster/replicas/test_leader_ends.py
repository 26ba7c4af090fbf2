"""The end or freeze of a leader in each state: no held connection is lost, no request is cut, and no wake ends."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.cluster.replicas.act import Act
from tests.cluster.replicas.scene import LEASE_SECONDS, PATIENCE_SECONDS, STATES, Scene
from tests.e2e.harness import until

ENDS = {"killed": signal.SIGKILL, "stopped": signal.SIGTERM}
CASES = [*(("killed", state) for state in STATES), ("stopped", "Waking"), ("stopped", "Draining")]


@pytest.mark.parametrize(("how", "state"), CASES)
def test_leader_ends_another_replica_leads(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, how: str, state: str
) -> None:
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


@dataclass(frozen=True)
class Lease:
    """A moment of the Lease."""

    holder: str
    acquired_at: datetime
    renewed_at: datetime


def lease(scene: Scene) -> Lease:
    spec = json.loads(scene.kubectl("get", "lease", "zenvoy", "-o", "jsonpath={.spec}"))
    acquired, renewed = (datetime.fromisoformat(spec[key]) for key in ("acquireTime", "renewTime"))
    return Lease(spec["holderIdentity"], acquired, renewed)


def test_leader_thawed_puts_nothing_to_sleep(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    act = Act(scene, "frozen", tmp_path, pool)
    act.bring("Active")
    before = scene.leader()
    scene.command(act.name, "sleep")  # as the former leader might have done
    scene.tell(before, signal.SIGSTOP)
    until("another one leads", lambda: scene.leader() not in ("", before))
    known = lease(scene)
    scene.tell(before, signal.SIGCONT)
    end = time.monotonic() + 2 * LEASE_SECONDS
    while time.monotonic() < end:
        assert scene.wanted(act.name) == 1
        now = lease(scene)
        # On a busy machine, a leader may renew its Lease too late.
        assert now.holder == known.holder or now.acquired_at - known.renewed_at >= timedelta(seconds=LEASE_SECONDS)
        known = now
    until("they agree", lambda: scene.overview(before)["standing"]["leads"] is (scene.leader() == before))
    act.answered()
    act.lives_on()


def test_wake_without_leader_is_reported_by_the_next(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    act = Act(scene, "untold", tmp_path, pool)
    act.bring("ScaledToZero")
    before = scene.leader()
    scene.ends(before, signal.SIGKILL)
    meanwhile = act.ask("/meanwhile")
    try:
        until("another one leads", lambda: scene.leader() not in ("", before))
        after = scene.leader()
        assert meanwhile.result().status == 200
        reported = {(after, "WakeRequested"), (after, "Active"), (after, "Woken")}
        until("its wake is reported", lambda: reported <= set(scene.events(act.name)))
    finally:
        scene.start(before)
    until("it is back", lambda: scene.is_ready(before))


@contextmanager
def frozen(scene: Scene, name: str) -> Iterator[None]:
    """Freeze a replica until another one has led for a while; its requests about its Lease then take longer."""
    scene.tell(name, signal.SIGSTOP)
    try:
        until("another one leads", lambda: scene.leader() not in ("", name))
        # Reconnecting proxies may reach either replica; here they reach the leader.
        scene.door.replicas.sort(key=lambda replica: replica == scene.grpc[name])
        yield
        scene.between[name].keep_its_lease()
    finally:
        scene.tell(name, signal.SIGCONT)


def watch(scene: Scene, act: Act, before: str, *, asked: bool) -> None:
    """Assert for a while that no replica scales it, and that the former leader does not try."""
    changes, zeroed = scene.changes(act.name), len(scene.between[before].zeroed)
    end = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < end:
        if asked:
            assert scene.request(act.name, "/now").status == 200
        assert scene.changes(act.name) == changes
        assert len(scene.between[before].zeroed) == zeroed


@pytest.mark.parametrize("where", ["leader", "follower"])
@pytest.mark.parametrize("state", ["Idle", "Draining"])
def test_leader_frozen_before_a_sleep_leaves_it_awake(
    watched: Scene, tmp_path: Path, pool: ThreadPoolExecutor, state: str, where: str
) -> None:
    scene, act = watched, Act(watched, f"late-{state.lower()}-{where}", tmp_path, pool)
    before = scene.leader()
    scene.proxy_joins(before if where == "leader" else scene.follower())
    act.bring(state, idle_after="10s")
    zeroed = len(scene.between[before].zeroed)
    with frozen(scene, before):
        act.answered()  # so that nothing keeps it awake
        assert scene.request(act.name, "/meanwhile").body.decode() == f"{act.name} /meanwhile\n"
    watch(scene, act, before, asked=False)
    scene.between[before].give_its_lease()
    watch(scene, act, before, asked=True)
    until("it knows who leads", lambda: scene.overview(before)["standing"]["leads"] is False)
    assert len(scene.between[before].zeroed) == zeroed
    act.lives_on()


@pytest.mark.parametrize("answer", ["yes", "busy"])
def test_leader_frozen_during_a_sleep_does_not_repeat_it(
    watched: Scene, tmp_path: Path, pool: ThreadPoolExecutor, answer: str
) -> None:
    scene, act = watched, Act(watched, f"again-{answer}", tmp_path, pool)
    act.bring("Idle")
    before = scene.leader()
    between = scene.between[before]
    between.refuses_zero = answer == "busy"
    between.at_zero = lambda: scene.tell(before, signal.SIGSTOP)
    # Until then a command to sleep has no effect.
    until("services may sleep", lambda: not scene.unknown(), PATIENCE_SECONDS)
    scene.command(act.name, "sleep")
    until("it is to be put to zero", lambda: act.name in between.zeroed, PATIENCE_SECONDS)
    between.at_zero, between.refuses_zero = lambda: None, False
    with frozen(scene, before):
        assert scene.request(act.name, "/meanwhile").body.decode() == f"{act.name} /meanwhile\n"
    watch(scene, act, before, asked=False)
    between.give_its_lease()
    watch(scene, act, before, asked=True)
    act.lives_on()
