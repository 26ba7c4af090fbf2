"""Metrics of services: states, figures, wakes, transitions, and the time asleep and waited."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core import events
from reconciler.core.busy import BusyAnswer, BusyUntil, check_failed
from reconciler.core.judge import Observed
from reconciler.core.reasons import Blocker, Reason
from reconciler.core.record import State
from reconciler.metrics.definitions import FIGURES
from reconciler.metrics.service_counters import ServiceCounters
from reconciler.plan import Deadline
from reconciler.ports.backend import ResourceRequests
from reconciler.ports.holders import HoldStatus
from tests.reconciler.metrics.scene import OPENMETRICS, START, Scene, service

P = "zenvoy_service_"


async def test_state_has_one_series_each_and_one_is_1() -> None:
    scene = Scene(service("web", State.Idle), service("db", State.Waking))

    states = {name: await scene.values(f"{P}state", service=name) for name in ("web", "db")}

    assert {name: len(found) for name, found in states.items()} == {"web": 5, "db": 5}
    one = {name: [dict(labels)["state"] for labels, value in found.items() if value] for name, found in states.items()}
    assert one == {"web": ["Idle"], "db": ["Waking"]}


async def test_busy_service_has_its_reason_until_its_time() -> None:
    scene = Scene(*(service(name, state) for name, state in (("web", State.Active), ("db", State.ScaledToZero))))
    until = BusyUntil(START + 60.0, Blocker(Reason.BUSY_UNTIL, "until then"))
    for one in scene.services.values():
        one.seen = replace(one.seen, busy_until=until)
    assert await scene.value(f"{P}busy_info", service="web", reason="BusyUntil") == 1
    assert not await scene.values(f"{P}busy_info", service="db")
    scene.passes(60.0)
    assert not await scene.values(f"{P}busy_info")


async def test_failed_busy_check_is_a_reason() -> None:
    scene = Scene(service("web", State.Active, has_busy_check=True))
    web = scene.services["web"]
    web.seen = replace(web.seen, busy=BusyAnswer(START, check_failed("GET /busy is not answered")))
    assert await scene.value(f"{P}busy_info", service="web", reason="BusyCheckFailed") == 1


async def test_service_spec_and_record_have_series() -> None:
    scene = Scene(service("web", State.Waking, wake_timeout=7.5, idle_after=60.0, hold_timeout=5.0, paused=True))
    one = scene.services["web"]
    assert one.record
    one.record = replace(one.record, stalled="exit 1")
    one.deadline = Deadline(START + 9.0, events.WakeTimedOut)
    one.requests = 42
    one.asks = ResourceRequests(0.5, 1024.0)
    one.saved_seconds, one.woke_early = 7.25, True
    scene.metrics.ran("web")

    figures = {family.name: await scene.value(family.sample_name, service="web") for family in FIGURES}

    expected = {
        "state_entered_timestamp_seconds": START - 100.0,
        "stalled": 1,
        "paused": 1,
        "replicas": 0,
        "held": 0,
        "relayed": 0,
        "released": 0,
        "refused": 0,
        "gone": 0,
        "requests": 42,
        "wake_timeout_seconds": 7.5,
        "idle_after_seconds": 60.0,
        "hold_timeout_seconds": 5.0,
        "deadline_timestamp_seconds": START + 9.0,
        "slept_replica_seconds": 0,
        "slept_cpu_core_seconds": 0,
        "slept_memory_byte_seconds": 0,
        "waited_seconds": 0,
        "last_wake_early": 1,
        "last_wake_saved_seconds": 7.25,
    }
    assert figures == {P + name: value for name, value in expected.items()}


async def test_stalled_info_has_the_code_while_stalled() -> None:
    scene = Scene(service("web", State.Waking))
    info = f"{P}stalled_info"
    assert await scene.values(info, service="web") == {}

    for sentence, word in (
        ("ImagePullBackOff: image nowhere:1 of container web cannot be pulled: no such host", "ImagePullBackOff"),
        ("Exited: exited with code 1 after 0.1 s: no database", "Exited"),
    ):
        scene.goes("web", "WakeStalled", State.Waking, stalled=sentence)
        assert await scene.values(info, service="web") == {frozenset({("reason", word)}): 1}

    restarted = Scene(scene.services["web"])
    assert await restarted.value(info, service="web", reason="Exited") == 1, "the record survives a restart"

    scene.goes("web", "Ready", State.Active)
    assert await scene.values(info, service="web") == {}

    scene.goes("web", "EndpointsLost", State.Waking)
    scene.goes("web", "WakeTimedOut", State.Waking, stalled="TimedOut: not ready, and no reason is reported")
    assert await scene.value(info, service="web", reason="TimedOut") == 1
    del scene.services["web"]
    scene.metrics.configured()
    assert info not in [line.partition("{")[0] for line in (await scene.scrape()).splitlines()]


async def test_service_unknown_values_have_no_series() -> None:
    scene = Scene(service("web"))
    scene.services["web"].seen = Observed()

    for figure in ("replicas", "held", "relayed", "deadline_timestamp_seconds"):
        assert await scene.value(P + figure, service="web") is None


async def test_service_without_record_has_no_series() -> None:
    one = service("web")
    one.record = None

    assert 'service="web"' not in await Scene(one).scrape()


async def test_service_removed_and_added_starts_at_zero() -> None:
    scene = Scene(service("web"), service("db"))
    scene.passes(10.0)
    gone = scene.services.pop("web")
    scene.metrics.configured()

    assert 'service="web"' not in await scene.scrape()
    assert 'service="db"' in await scene.scrape()

    scene.services["web"] = gone
    scene.metrics.ran("web")
    assert await scene.value(f"{P}slept_replica_seconds_total", service="web") == 0


async def test_service_counters_restart_when_elected() -> None:
    scene = Scene(service("web", replicas=2))
    scene.passes(10.0)
    assert await scene.value(f"{P}slept_replica_seconds_total", service="web") == 20

    scene.leads = False
    scene.passes(1000.0)
    assert 'service="web"' not in await scene.scrape()

    scene.leads = True
    scene.metrics.lead()
    assert await scene.value(f"{P}slept_replica_seconds_total", service="web") == 0, "another has counted that"
    scene.passes(5.0)
    assert await scene.value(f"{P}slept_replica_seconds_total", service="web") == 10


async def test_slept_sleeping_service_counts_when_elected() -> None:
    scene = Scene()
    scene.leads = False
    scene.services["web"] = service("web", replicas=2)
    scene.metrics.ran("web")
    scene.passes(100.0)

    scene.leads = True
    scene.metrics.lead()
    scene.passes(5.0)
    assert await scene.value(f"{P}slept_replica_seconds_total", service="web") == 10


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
async def test_service_name_is_escaped(accept: str) -> None:
    name = 'a"b\\c\nd'
    scene = Scene(service(name))
    scene.goes(name, "DemandSeen", State.Waking)

    read = await scene.families(accept)

    for family in ("state", "held", "transitions", "wakes"):
        assert {sample.labels["service"] for sample in read[P + family].samples} == {name}


async def test_transitions_are_counted_by_states_and_event() -> None:
    scene = Scene(service("web"), service("db"))
    for _ in range(2):
        scene.goes("web", "DemandSeen", State.Waking)
        scene.goes("web", "Ready", State.Active)
        scene.goes("web", "ReplicasAtZero", State.ScaledToZero)

    counted = await scene.values(f"{P}transitions_total", service="web")

    assert {tuple(sorted(labels)): value for labels, value in counted.items()} == {
        (("event", "DemandSeen"), ("from", "ScaledToZero"), ("to", "Waking")): 2,
        (("event", "Ready"), ("from", "Waking"), ("to", "Active")): 2,
        (("event", "ReplicasAtZero"), ("from", "Active"), ("to", "ScaledToZero")): 2,
    }
    assert not await scene.values(f"{P}transitions_total", service="db")


async def results(scene: Scene) -> dict[str, float]:
    found = await scene.values(f"{P}wakes_total", service="web")
    return {dict(labels)["result"]: value for labels, value in found.items()}


async def test_wakes_are_counted_from_the_first() -> None:
    scene = Scene(service("web"))
    assert await results(scene) == {}

    scene.goes("web", "DemandSeen", State.Waking)
    assert await results(scene) == {"woken": 0, "stalled": 0, "timed_out": 0}

    scene.goes("web", "Ready", State.Active)
    assert await results(scene) == {"woken": 1, "stalled": 0, "timed_out": 0}


async def test_wake_stalled_twice_counts_once() -> None:
    scene = Scene(service("web", wake_timeout=10.0))
    scene.goes("web", "DemandSeen", State.Waking)
    scene.passes(1.0)
    scene.goes("web", "WakeStalled", State.Waking, stalled="exit 1")
    scene.goes("web", "WakeStalled", State.Waking, stalled="exit 2")
    assert await results(scene) == {"woken": 0, "stalled": 1, "timed_out": 0}

    scene.passes(9.0)
    assert await results(scene) == {"woken": 0, "stalled": 1, "timed_out": 1}

    scene.passes(20.0)
    scene.goes("web", "Ready", State.Active)
    assert await results(scene) == {"woken": 1, "stalled": 1, "timed_out": 1}

    scene.goes("web", "ReplicasAtZero", State.ScaledToZero)
    scene.goes("web", "DemandSeen", State.Waking)
    scene.goes("web", "Ready", State.Active)
    assert await results(scene) == {"woken": 2, "stalled": 1, "timed_out": 1}


async def test_wake_without_sleep_does_not_count_as_woken() -> None:
    scene = Scene(service("web"))
    scene.goes("web", "DemandSeen", State.Waking)
    scene.goes("web", "Ready", State.Active)
    scene.goes("web", "EndpointsLost", State.Waking)
    scene.goes("web", "Ready", State.Active)
    assert await results(scene) == {"woken": 1, "stalled": 0, "timed_out": 0}

    scene.goes("web", "EndpointsLost", State.Waking)
    scene.passes(100)
    assert (await results(scene))["timed_out"] == 1, "it is looked after as a wake would be"


async def test_wake_begun_before_restart_still_times_out() -> None:
    scene = Scene(service("web", State.Waking, wake_timeout=60.0))

    assert await results(scene) == {"woken": 0, "stalled": 0, "timed_out": 1}


async def test_last_wake_has_duration_and_parts() -> None:
    scene = Scene(service("web"))
    scene.goes("web", "DemandSeen", State.Waking)
    scene.metrics.woke("web", 0.75, {"signal": 0.25, "reachable": 0.5})

    parts = await scene.values(f"{P}last_wake_part_duration_seconds", service="web")

    assert await scene.value(f"{P}last_wake_duration_seconds", service="web") == 0.75
    assert {dict(labels)["part"]: value for labels, value in parts.items()} == {"signal": 0.25, "reachable": 0.5}


async def test_slept_counts_replicas_not_run() -> None:
    scene = Scene(service("web", replicas=3))
    slept = f"{P}slept_replica_seconds_total"
    assert await scene.value(slept, service="web") == 0, "only what is seen counts, or a restart would count twice"

    scene.passes(10.0)
    assert await scene.value(slept, service="web") == 30.0

    scene.goes("web", "DemandSeen", State.Waking)
    scene.passes(100.0)
    assert await scene.value(slept, service="web") == 30.0

    scene.goes("web", "ReplicasAtZero", State.ScaledToZero)
    scene.passes(2.0)
    assert await scene.value(slept, service="web") == 36.0


async def test_slept_counts_requests_of_replicas_not_run() -> None:
    cpu, memory = f"{P}slept_cpu_core_seconds_total", f"{P}slept_memory_byte_seconds_total"
    scene = Scene(service("web", replicas=2), service("db"))
    assert await scene.value(cpu, service="web") is None, "not known is no series"

    scene.services["web"].asks = ResourceRequests(cpu_cores=0.5)
    scene.metrics.ran("web")
    scene.passes(10.0)
    assert await scene.value(cpu, service="web") == 10
    assert await scene.value(memory, service="web") is None

    scene.services["web"].asks = ResourceRequests(0.25, 1024.0)
    scene.metrics.ran("web")
    scene.passes(10.0)
    scene.goes("web", "DemandSeen", State.Waking)
    scene.passes(10.0)
    assert await scene.value(cpu, service="web") == 15
    assert await scene.value(memory, service="web") == 20480
    assert await scene.value(cpu, service="db") is None


async def test_waited_adds_up_all_held_connections() -> None:
    scene = Scene(service("web"))
    waited = f"{P}waited_seconds_total"
    scene.holds("web", 1)
    scene.passes(2.0)
    scene.holds("web", 3)
    scene.passes(1.0)
    assert await scene.value(waited, service="web") == 5.0

    scene.holds("web", 0, released=3)
    scene.passes(100.0)
    assert await scene.value(waited, service="web") == 5.0

    scene.holds("web", None)
    assert await scene.value(waited, service="web") == 5.0


async def test_holder_totals_new_holder_never_fall_nor_jump() -> None:
    scene = Scene(service("web"))

    async def counted() -> list[float | None]:
        return [await scene.value(f"{P}{name}_total", service="web") for name in ("released", "refused", "gone")]

    scene.holders = ["one"]
    scene.holds("web", 0, released=10, refused=5, gone=2)
    assert await counted() == [0, 0, 0], "they were counted before we came"

    scene.holds("web", 0, released=12, refused=6, gone=3)
    assert await counted() == [2, 1, 1]

    scene.holders = ["one", "two"]
    scene.holds("web", 0, released=112, refused=106, gone=103)
    assert await counted() == [2, 1, 1]

    scene.holds("web", 0, released=113, refused=106, gone=103)
    assert await counted() == [3, 1, 1]

    scene.holders = ["one"]
    scene.holds("web", 0, released=12, refused=6, gone=3)
    scene.holds("web", 0, released=13, refused=6, gone=3)
    assert await counted() == [4, 1, 1]


async def test_holder_totals_holder_of_other_replica_do_not_jump() -> None:
    scene = Scene(service("web"))
    released = f"{P}released_total"
    scene.holders = ["one", "two"]
    scene.holds("web", 0, released=10)
    scene.holds("web", 0, released=12)
    assert await scene.value(released, service="web") == 2

    scene.holds("web", None, released=5)  # the total of the other replica is unknown for a moment
    scene.holds("web", 0, released=13)
    assert await scene.value(released, service="web") == 3

    scene.holders = ["one"]
    scene.holds("web", 0, released=5)
    scene.holders = ["one", "two"]
    scene.holds("web", None, released=5)  # it is connected, and has not reported yet
    scene.holds("web", 0, released=14)
    assert await scene.value(released, service="web") == 3


async def test_refusals_are_counted_by_reason_from_the_first() -> None:
    scene = Scene(service("web"))

    async def refused(reason: str) -> float | None:
        return await scene.value(f"{P}refusals_total", service="web", reason=reason)

    scene.holders = ["one"]
    scene.holds("web", 0)
    assert await refused("timeout") is None

    scene.holds("web", 0, timeout=2)
    scene.holds("web", 0, timeout=3, max_held=1)
    assert [await refused(reason) for reason in ("timeout", "max_held")] == [3, 1]

    scene.holders = ["one", "two"]
    scene.holds("web", 0, timeout=13, max_held=1, draining=7)
    scene.holds("web", 0, timeout=14, max_held=1, draining=7)
    assert [await refused(reason) for reason in ("timeout", "max_held", "draining")] == [4, 1, 0]


def test_counters_without_events_share_objects() -> None:
    one, other = ServiceCounters(), ServiceCounters()
    for counters in (one, other):
        counters.saw_held(HoldStatus("web", 0, 0), frozenset({"local"}), 1.0)
    assert one.released is other.released
    assert one.transitions is other.transitions
    assert one.refusals is other.refusals
