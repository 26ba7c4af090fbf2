"""Where samples come from: Envoy's admin port, or Prometheus when there is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.core.traffic import Pace
from reconciler.envoy.admin_stats import AdminStats
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.xds_router import service_of_stat

if TYPE_CHECKING:
    from reconciler.envoy.prometheus.stats import PrometheusStats

ADMIN_TIMEOUT_SECONDS = 2.0
ADMIN_SPACING_SECONDS = 0.02


def admin(node: str, socket: Path) -> AdminStats:
    """Of the one Envoy on this machine."""
    return AdminStats(lambda: {node: socket}, time.time, ADMIN_TIMEOUT_SECONDS, service_of_stat)


def prometheus(settings: PrometheusSettings, envoys: Callable[[], frozenset[str]]) -> PrometheusStats:
    """Of all Envoys that Prometheus scrapes."""
    from reconciler.envoy.prometheus.stats import PrometheusStats

    return PrometheusStats(settings, time.time, envoys, service_of_stat)


def spacing(settings: PrometheusSettings | None) -> float:
    """Seconds between two samples at the least: Prometheus knows nothing new before it has scraped again."""
    return ADMIN_SPACING_SECONDS if settings is None else settings.scrape_interval / 4


def pace(sample_interval: float, settings: PrometheusSettings | None) -> Pace:
    """How soon samples tell of what happens; Prometheus does when every Envoy was scraped once more."""
    if settings is None:
        return Pace(5 * sample_interval + ADMIN_TIMEOUT_SECONDS)
    scrape, answer = settings.scrape_interval, settings.most
    return Pace(2 * scrape + sample_interval + answer, scrape + spacing(settings) + sample_interval + answer)
