"""The scene of the tests here, and its logs when one fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.replicas.scene import Scene, opened

_SCENE = pytest.StashKey[Scene]()


@pytest.fixture(scope="package")
def scene(
    request: pytest.FixtureRequest, control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Provide one scene for all tests here; each test has services of its own."""
    yield from _opened(request, Scene(control_plane, tmp_path_factory.mktemp("scene")))


@pytest.fixture(scope="module")
def watched(
    request: pytest.FixtureRequest, control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Provide a scene that records the requests for zero."""
    yield from _opened(request, Scene(control_plane, tmp_path_factory.mktemp("watched"), watched=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for node in item.listchain():
            if scene := node.stash.get(_SCENE, None):
                report.sections.append(("scene", scene.logs()))
    return report


def _opened(request: pytest.FixtureRequest, made: Scene) -> Iterator[Scene]:
    request.node.stash[_SCENE] = made
    with opened(made):
        yield made
