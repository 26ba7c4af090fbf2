"""Metrics of the reconciler itself: wakes, samples, Envoys, holders; and the formats of a scrape."""

from __future__ import annotations

import asyncio
import time

import pytest

from reconciler.core.reasons import UNKNOWN_REASONS, Reason, Unknown
from reconciler.core.record import State
from reconciler.core.traffic import EnvoyReading, Sample
from reconciler.metrics.metrics import LAG_INTERVAL_SECONDS
from tests.reconciler.metrics.scene import OPENMETRICS, PLAIN, Scene, envoy, service

EVERYTHING = ["text/plain", PLAIN, OPENMETRICS, "application/openmetrics-text", "*/*", ""]


@pytest.mark.parametrize("accept", EVERYTHING)
async def test_scrape_accept_header_selects_the_format(accept: str) -> None:
    scene = Scene(service("web"))

    body, content_type = await scene.metrics.scrape(accept)

    is_openmetrics = "openmetrics" in accept
    assert content_type.startswith("application/openmetrics-text" if is_openmetrics else "text/plain; version=0.0.4")
    assert body.endswith(b"# EOF\n") == is_openmetrics
    assert not is_openmetrics or b"# TYPE zenvoy_service_requests counter\n" in body
    assert is_openmetrics or b"# TYPE zenvoy_service_requests_total counter\n" in body


async def test_scrape_formats_have_equal_samples() -> None:
    scene = Scene(service("web", State.Active), service("db"))
    scene.envoys["edge"] = envoy(versions={"type.googleapis.com/envoy.config.cluster.v3.Cluster": "abc"})
    scene.goes("db", "DemandSeen", State.Waking)
    scene.metrics.woke("db", 0.2, {"signal": 0.1, "ready": 0.1})

    plain, openmetrics = await scene.families(PLAIN), await scene.families(OPENMETRICS)

    ours = [name for name in plain if name.startswith("zenvoy_")]
    assert ours == [name for name in openmetrics if name.startswith("zenvoy_")]
    for name in ours:
        assert plain[name].type == openmetrics[name].type
        assert plain[name].documentation == openmetrics[name].documentation
        assert {(s.name, *sorted(s.labels.items()), s.value) for s in plain[name].samples} == {
            (s.name, *sorted(s.labels.items()), s.value) for s in openmetrics[name].samples
        }


async def test_wake_exemplar_names_the_service() -> None:
    scene = Scene(service("web"), service("x" * 250))
    scene.metrics.woke("web", 0.2, {"signal": 0.02})
    scene.metrics.woke("x" * 250, 2.0, {"signal": 0.02})

    read = await scene.families(OPENMETRICS)

    for name in ("zenvoy_wake_duration_seconds", "zenvoy_wake_part_duration_seconds"):
        exemplars = [sample.exemplar for sample in read[name].samples if sample.exemplar]
        assert [exemplar.labels for exemplar in exemplars] == [{"service": "web"}], "a name too long for one has none"


async def test_wake_served_counts_until_next_sleep() -> None:
    scene = Scene(service("web"))
    scene.services["web"].requests = 100
    scene.holders = ["one"]
    scene.holds("web", 1)
    scene.goes("web", "DemandSeen", State.Waking)
    scene.goes("web", "Ready", State.Active)
    scene.holds("web", 0, released=2)
    scene.services["web"].requests = 130
    scene.goes("web", "ReplicasAtZero", State.ScaledToZero)

    assert await scene.value("zenvoy_wake_served_requests_sum") == 30
    assert await scene.value("zenvoy_wake_released_connections_sum") == 2
    assert await scene.value("zenvoy_wake_served_requests_count") == 1


async def test_wake_served_service_awake_at_start_has_none() -> None:
    scene = Scene(service("web", State.Active))
    scene.goes("web", "ReplicasAtZero", State.ScaledToZero)

    assert await scene.value("zenvoy_wake_served_requests_count") == 0


async def test_samples_are_counted_by_cause() -> None:
    scene = Scene()
    reading = {"edge": EnvoyReading(100.0, {})}
    scene.metrics.sampled(Sample(5.0, reading), None)
    scene.metrics.sampled(Sample(5.0, reading), None)
    scene.metrics.sampled(Sample(6.0, {}, {"edge": "gone"}), Unknown(Reason.ENVOY_MISSING, "it is gone"))

    assert await scene.value("zenvoy_samples_total") == 2, "one that was seen before is none"
    assert await scene.value("zenvoy_samples_unknown_total", cause="envoy_missing") == 1
    assert len(await scene.values("zenvoy_samples_unknown_total")) == len(UNKNOWN_REASONS)
    unknown = await scene.values("zenvoy_sample_unknown")
    assert {dict(labels)["cause"]: value for labels, value in unknown.items()} == {
        cause: float(cause is Reason.ENVOY_MISSING) for cause in UNKNOWN_REASONS
    }
    assert await scene.value("zenvoy_sample_complete") == 0
    assert await scene.value("zenvoy_sample_timestamp_seconds") == 5.0, "the second had no Envoy"
    assert await scene.value("zenvoy_sample_complete_timestamp_seconds") == 5.0

    scene.leads = False
    for name in ("complete", "timestamp_seconds", "complete_timestamp_seconds"):
        assert await scene.value(f"zenvoy_sample_{name}") is None, "only who leads takes samples"
    assert not await scene.values("zenvoy_sample_unknown")


async def test_envoys_have_series_while_connected() -> None:
    scene = Scene()
    prefix = "type.googleapis.com/envoy.config"
    scene.envoys["edge"] = envoy(
        since=7.0,
        nacks=2,
        versions={
            f"{prefix}.cluster.v3.Cluster": "v1",
            f"{prefix}.endpoint.v3.ClusterLoadAssignment": "changes all the time",
            f"{prefix}.listener.v3.Listener": "",
        },
    )
    scene.metrics.acked("edge")
    scene.metrics.acked("edge")

    assert await scene.value("zenvoy_xds_connected_envoys") == 1
    assert await scene.value("zenvoy_xds_connected_timestamp_seconds", envoy="edge") == 7.0
    assert await scene.value("zenvoy_xds_acks_total", envoy="edge") == 2
    assert await scene.value("zenvoy_xds_nacks_total", envoy="edge") == 2
    acked = await scene.values("zenvoy_xds_acked_version_info", envoy="edge")
    assert [dict(labels) for labels in acked] == [{"type": "Cluster", "version": "v1"}]

    scene.envoys.clear()
    assert 'envoy="edge"' not in await scene.scrape()
    assert await scene.value("zenvoy_xds_connected_envoys") == 0


async def test_build_info_names_versions() -> None:
    scene = Scene(service("web"), service("db"))
    scene.holders = ["one"]
    scene.ready = False

    assert await scene.value("zenvoy_services") == 2
    assert await scene.value("zenvoy_holders_connected") == 1
    assert await scene.value("zenvoy_ready") == 0
    assert await scene.value("zenvoy_leader") == 1
    assert list((await scene.values("zenvoy_build_info")).values()) == [1]
    assert "zenvoy_ready 0.0" in await scene.scrape()


async def test_loop_lag_is_measured() -> None:
    scene = Scene()
    scene.metrics.start()
    begun = time.monotonic()
    async with asyncio.timeout(60):
        while not await scene.value("zenvoy_event_loop_lag_seconds_count"):
            await asyncio.sleep(0.05)
    scene.metrics.close()

    assert time.monotonic() - begun >= LAG_INTERVAL_SECONDS * 0.9
    assert (await scene.value("zenvoy_event_loop_lag_seconds_sum") or 0) >= 0


async def test_scrape_ten_thousand_services_takes_under_a_second() -> None:
    scene = Scene(*(service(f"shop/service-{number}") for number in range(10_000)))
    for name in list(scene.services)[:100]:
        scene.goes(name, "DemandSeen", State.Waking)
    for accept in (PLAIN, OPENMETRICS):
        begun = time.process_time()
        text = await scene.scrape(accept)
        assert time.process_time() - begun < 1.0
        assert text.count('state="Idle"') == 10_000
