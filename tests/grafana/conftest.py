"""Two real runs of zenvoy, each with its Prometheus: an eventful one, and one in which nothing sleeps.

They end with the file that uses them: a running zenvoy and its Prometheus take processor time from all later tests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.e2e.harness import quick, request, until
from tests.grafana.answers import Viewer
from tests.grafana.scene import Scene, running, viewer

EVENTFUL_SECONDS = 24.0


@pytest.fixture(scope="module")
def eventful_viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """View a run in which services slept, woke, stalled, and refused connections."""
    with running(tmp_path_factory.mktemp("eventful")) as scene:
        yield viewer(scene, scene.play(EVENTFUL_SECONDS))


@pytest.fixture(scope="module")
def uneventful_viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """View a run in which one service is in use throughout: nothing sleeps, wakes, or is held.

    The first reconciler finds every service asleep; the range therefore starts with a second one.
    """
    directory = tmp_path_factory.mktemp("uneventful")
    busy = ({"name": "api", "command": quick("http"), "paused": True},)
    with running(directory, busy) as scene:
        scene.zenvoy.wake("api")
        scene.zenvoy.kill("reconciler")
        scene.zenvoy.wait_state("api", "Active", "Idle")
        until(
            "the new reconciler is scraped", lambda: _is_scraped(scene, "changes(process_start_time_seconds[1m]) > 0")
        )
        start = time.time()
        until("a sample is complete", lambda: _is_scraped(scene, "zenvoy_sample_complete == 1"))
        until("its requests are scraped", lambda: _is_used(scene))
        until(
            "all targets are scraped for a while", lambda: _is_scraped(scene, "count(min_over_time(up[4s]) == 1) == 3")
        )
        seen = viewer(scene, time.time())
        yield replace(seen, span=replace(seen.span, start=start))


def _is_scraped(scene: Scene, expr: str) -> bool:
    return bool(scene.prometheus.instant(expr, time.time()))


def _is_used(scene: Scene) -> bool:
    """Send a request; return whether requests have been counted and scraped."""
    request(scene.zenvoy.http_port, "api")
    return _is_scraped(scene, "rate(zenvoy_service_requests_total[5s]) > 0")
