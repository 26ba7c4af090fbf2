"""Fixtures: a control plane, a client, a namespace for each test, and `node`, which runs pods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from reconciler.kubernetes.client.api import Api, connect
from tests.cluster import harness
from tests.cluster.chart import Chart
from tests.cluster.harness import Cluster
from tests.cluster.namespaces import new_namespace
from tests.cluster.openshift import constrained, documented_values, flat
from tests.cluster.release import SYSTEM, Release, Shop, load_images, new_shop
from tests.cluster.stage import Stage

NODE_TEST_SECONDS = 1800
"""The first test may build Kubernetes and the images."""
CONTROL_PLANE_TEST_SECONDS = 900
"""The first test starts the control plane, and may build it."""
COMMON = {"proxy.tcp[0].name": "postgres", "proxy.tcp[0].port": "5432", "capture.enabled": "true"}
"""Values of every release."""
OPENSHIFT = "openshift"
RELEASES = {
    "anyip": {"holdMode": "anyip"},
    "tproxy": {"holdMode": "tproxy"},
    OPENSHIFT: dict(flat(documented_values())),
}
"""Values for each hold mode, and for OpenShift."""
NODE_FOLDER = "node"
PATIENT_CALL_SECONDS = 120.0
"""The time-out of the calls that a test makes itself: an API server on a busy machine may stop for seconds."""
_RELEASE = pytest.StashKey[Release]()
_OURS_ONLY = {"apiserver", OPENSHIFT}
"""Fixtures, and values of `zenvoy`, of tests that must not run on a cluster in use."""


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Provide an API server, etcd and controller manager for the whole run; no pod runs."""
    yield from _cluster(tmp_path_factory.mktemp("control-plane"))


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Provide a control plane with a node: pods run, Services lead to them, names resolve."""
    yield from _cluster(tmp_path_factory.mktemp("node"), "--node")


@pytest.fixture(scope="session")
def loaded(node: Cluster) -> Cluster:
    """Provide the node, with all images."""
    load_images(node)
    return node


@pytest.fixture(scope="session", params=["anyip"])
def zenvoy(request: pytest.FixtureRequest, loaded: Cluster) -> Iterator[Release]:
    """Provide zenvoy as its chart installs it; the parameter is its hold mode, or OpenShift."""
    release = Release(loaded, {**RELEASES[request.param], **COMMON})
    request.session.stash[_RELEASE] = release
    with ExitStack() as system:
        if request.param == OPENSHIFT:
            system.enter_context(constrained(loaded, SYSTEM))
        system.callback(request.session.stash.__delitem__, _RELEASE)
        system.callback(release.uninstall)
        release.install()
        yield release


@pytest.fixture
def replaced(zenvoy: Release) -> Iterator[Release]:
    """Provide zenvoy to a test that changes its values; it is installed again after the test."""
    yield zenvoy
    zenvoy.uninstall()
    zenvoy.install()


@pytest.fixture
def shop(loaded: Cluster) -> Iterator[Shop]:
    """Provide a new namespace on the node."""
    with new_shop(loaded) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    release = item.session.stash.get(_RELEASE, None)
    if report.failed and release:
        report.sections.append(("cluster", release.explained()))
    return report


@pytest.fixture
def apiserver(control_plane: Cluster) -> Iterator[Cluster]:
    """Provide the control plane for a test that stops or freezes its API server; it serves again after the test."""
    yield control_plane
    control_plane.start_apiserver()


@pytest.fixture
async def api(
    request: pytest.FixtureRequest, control_plane: Cluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    """Provide a client with every right, which is patient with a slow machine, unless the test stops the API server."""
    client = await connect(control_plane.kubeconfig)
    call: Any = client.call

    async def call_patiently(*arguments: Any, timeout: float = 0, **named: Any) -> bytes:
        answer: bytes = await call(*arguments, timeout=max(timeout, PATIENT_CALL_SECONDS), **named)
        return answer

    if "apiserver" not in request.fixturenames:
        monkeypatch.setattr(client, "call", call_patiently)
    yield client
    await client.close()


@pytest.fixture
async def namespace(control_plane: Cluster) -> AsyncIterator[str]:
    """Provide the name of a new namespace, which goes after the test with all that is in it.

    With a client of its own, so that a test may do anything to `api`.
    """
    client = await connect(control_plane.kubeconfig)
    try:
        async with new_namespace(client, "test") as name:
            yield name
    finally:
        await client.close()


@pytest.fixture
async def node_of(api: Api, namespace: str) -> AsyncIterator[None]:
    """Provide the node that pods are bound to: without one, controllers consider them lost."""
    name = f"node-of-{namespace}"
    await api.call("POST", "/api/v1/nodes", {"metadata": {"name": name}})
    yield
    await api.call("DELETE", f"/api/v1/nodes/{name}")


@pytest.fixture
async def stage(control_plane: Cluster, api: Api, namespace: str) -> AsyncIterator[Stage]:
    """Provide a namespace with a backend that looks after its workloads."""
    urgent = await connect(control_plane.kubeconfig)
    made = Stage(api, urgent, namespace)
    yield made
    await made.backend.close()
    await urgent.close()


@pytest.fixture
async def system(control_plane: Cluster, api: Api, tmp_path: Path) -> AsyncIterator[Chart]:
    """Provide the chart in a namespace of its own; no pod of it runs."""
    async with new_namespace(api, "system") as name:
        chart = Chart(control_plane, name, tmp_path)
        chart.install()
        yield chart
        chart.uninstall()


def pytest_configure(config: pytest.Config) -> None:
    """A TLS handshake with an API server that is frozen, once given up, is shut down by asyncio in its own time, which
    may be after the test and its event loop."""
    config.addinivalue_line("filterwarnings", r"ignore:unclosed (transport|<socket\.socket):ResourceWarning")


class _OneNode(LoadScopeScheduling):
    """Gives all tests in `node` to one worker, because a machine has one node, and the rest file by file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return NODE_FOLDER if f"/{NODE_FOLDER}/" in file else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _OneNode(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests here with what they need: a cluster, and with the `node` fixture a node.

    The tests on a node take longest, and come first.
    """
    here = Path(__file__).parent
    spared = []
    for item in items:
        if here not in item.path.parents:
            continue
        names = set(getattr(item, "fixturenames", ()))
        item.add_marker("cluster")
        if "node" in names:
            item.add_marker("node")
            item.add_marker(pytest.mark.timeout(NODE_TEST_SECONDS))
        elif "control_plane" in names:
            item.add_marker(pytest.mark.timeout(CONTROL_PLANE_TEST_SECONDS))
        if call := getattr(item, "callspec", None):
            names.add(call.params.get("zenvoy"))
        if names & _OURS_ONLY and (own := harness.own()) and own.folder is None:
            spared.append(item)
    items.sort(key=lambda item: item.path.parent != here / NODE_FOLDER)
    if spared:
        config.hook.pytest_deselected(items=spared)
        items[:] = [item for item in items if item not in set(spared)]


def _cluster(folder: Path, *options: str) -> Iterator[Cluster]:
    if own := harness.own():
        yield own
        return
    cluster = harness.start(folder / "state", *options)
    try:
        yield cluster
    finally:
        cluster.down()
