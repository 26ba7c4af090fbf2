"""zenvoy with the ids that OpenShift's constraint restricted-v2 assigns, which no file of its images knows."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import OPENSHIFT
from tests.cluster.openshift import GROUP, USER
from tests.cluster.release import SYSTEM, Release, Shop, web

CONTAINERS = {"reconciler": ["reconciler"], "proxy": ["envoy", "holder", "keeper"]}


@pytest.mark.parametrize("zenvoy", [OPENSHIFT], indirect=True)
def test_user_without_a_name_wakes_and_puts_to_sleep(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("web", replicas=0))
    shop.label("web", idle_after="2s")
    shop.until("web", "ScaledToZero")
    assert zenvoy.curl(shop.host("web")).status == 200
    for component, names in CONTAINERS.items():
        pod = a_pod(zenvoy, component)
        for name in names:
            assert ids(zenvoy, pod, name) == {"Uid": {USER}, "Gid": {0}, "Groups": {0, GROUP}}
    shop.until_asleep("web")


def a_pod(release: Release, component: str) -> str:
    labelled = f"app.kubernetes.io/component={component}"
    return release.node.kubectl("get", "pods", "-n", SYSTEM, "-l", labelled, "-o", "jsonpath={.items[0].metadata.name}")


def ids(release: Release, pod: str, container: str) -> dict[str, set[int]]:
    """Return the ids of a container's processes, by the name that the kernel gives them."""
    shell = ("/bin/sh", "-c", 'while read -r line; do echo "$line"; done </proc/self/status')
    said = release.node.kubectl("exec", "-n", SYSTEM, pod, "-c", container, "--", *shell)
    lines = dict(line.split(":", 1) for line in said.splitlines())
    return {name: {int(one) for one in lines[name].split()} for name in ("Uid", "Gid", "Groups")}
