"""Fixtures for real parts; `zenvoy` is the fixture of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.conftest import pytest_runtest_makereport, shared_zenvoy, zenvoy
from tests.e2e.harness import LOCAL
from tests.ports import free_port
from tests.prometheus.parts import Alertmanager, Prometheus, Server, Webhook

__all__ = ["pytest_runtest_makereport", "shared_zenvoy", "zenvoy"]


@dataclass(frozen=True)
class Ports:
    """The addresses at which one `zenvoy up` serves its metrics."""

    metrics: str = field(default_factory=lambda: f"{LOCAL}:{free_port()}")
    holder: str = field(default_factory=lambda: f"{LOCAL}:{free_port()}")

    @property
    def options(self) -> tuple[str, ...]:
        return ("--metrics", self.metrics, "--holder-metrics", self.holder)

    @property
    def targets(self) -> Mapping[str, tuple[str, str]]:
        return {
            "envoy": (self.metrics, "/envoy/metrics"),
            "zenvoy": (self.metrics, "/metrics"),
            "zenvoy-tproxy": (self.holder, "/metrics"),
        }


@pytest.fixture
def ports() -> Ports:
    return Ports()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    yield hook
    hook.close()


StartPrometheus = Callable[..., Prometheus]


@pytest.fixture
def prometheus(tmp_path: Path, ports: Ports) -> Iterator[StartPrometheus]:
    """Return a function that starts a Prometheus which scrapes `ports`."""
    with ExitStack() as stack:

        def make(alertmanager: Server | None = None) -> Prometheus:
            one = Prometheus(tmp_path, ports.targets, alertmanager)
            stack.callback(one.close)
            one.start()
            return one

        yield make


@pytest.fixture
def alertmanager(tmp_path: Path, webhook: Webhook) -> Iterator[Alertmanager]:
    one = Alertmanager(tmp_path, webhook.url)
    one.start()
    yield one
    one.close()
