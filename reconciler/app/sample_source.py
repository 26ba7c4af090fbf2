"""Sources of samples: the admin port of Envoy, or Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from reconciler.core.traffic import Pace
from reconciler.envoy.admin_stats import STATS_PORTS, Admin, AdminStats
from reconciler.envoy.prometheus.settings import PrometheusSettings

if TYPE_CHECKING:
    from reconciler.envoy.prometheus.stats import PrometheusStats

ADMIN_TIMEOUT_SECONDS = 2.0
ADMIN_SPACING_SECONDS = 0.02


def admin(admins: Callable[[], Mapping[str, Admin]], ports: range = STATS_PORTS) -> AdminStats:
    """Return the statistics of Envoys by their admin ports, see `AdminStats`."""
    return AdminStats(admins, time.time, ADMIN_TIMEOUT_SECONDS, ports)


def prometheus(settings: PrometheusSettings, envoys: Callable[[], frozenset[str]]) -> PrometheusStats:
    """Return the statistics of all Envoys that Prometheus scrapes."""
    from reconciler.envoy.prometheus.stats import PrometheusStats

    return PrometheusStats(settings, time.time, envoys)


def spacing(settings: PrometheusSettings | None) -> float:
    """Return the shortest time between two samples, in seconds: Prometheus has new values only after a scrape."""
    return ADMIN_SPACING_SECONDS if settings is None else settings.scrape_interval / 4


def pace(sample_interval: float, settings: PrometheusSettings | None) -> Pace:
    """Return the delay of samples; with Prometheus it includes the next scrape of every Envoy."""
    if settings is None:
        return Pace(5 * sample_interval + ADMIN_TIMEOUT_SECONDS)
    scrape, answer = settings.scrape_interval, settings.seconds_max
    return Pace(2 * scrape + sample_interval + answer, scrape + spacing(settings) + sample_interval + answer)
