"""The `zenvoy` fixture, and the logs of those that failed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Zenvoy

Start = Callable[..., Zenvoy]
_RUNNING = pytest.StashKey[list[Zenvoy]]()


@pytest.fixture
def zenvoy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Start one: `zenvoy({"name": "web", …}, …, defaults={…})`; keywords of `Zenvoy`, and `start=False`, pass on.

    Everything that it started is gone after the test, however that ended; its logs are shown if it failed.
    """
    yield from _starting(request.node.stash, tmp_path)


@pytest.fixture(scope="module")
def shared_zenvoy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start one for all tests of a file, each with services of its own: starting takes seconds."""
    yield from _starting(request.node.stash, tmp_path_factory.mktemp("shared"))


def _starting(stash: pytest.Stash, folder: Path) -> Iterator[Start]:
    running: list[Zenvoy] = []
    stash[_RUNNING] = running

    def make(
        *services: dict[str, Any],
        start: bool = True,
        options: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        **config: Any,
    ) -> Zenvoy:
        one = Zenvoy(
            folder / f"z{len(running)}",
            {**config, "services": list(services)},
            options=options,
            prefix=prefix,
            environment=environment,
        )
        running.append(one)
        if start:
            one.start()
        return one

    yield make
    for one in running:
        one.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every end-to-end test as one that needs Envoy."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("envoy")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when in ("setup", "call"):
        for node in item.listchain():
            for one in node.stash.get(_RUNNING, []):
                report.sections.append(("zenvoy", one.logs()))
    return report
