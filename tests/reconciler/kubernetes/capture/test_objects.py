"""The objects of a captured Service."""

from __future__ import annotations

import pytest

from reconciler.kubernetes.capture.objects import Body, companion, proxy_slices
from reconciler.kubernetes.types.builtin import Endpoint, EndpointConditions, Service, ServicePort, ServiceSpec
from reconciler.kubernetes.types.objects import ObjectMeta
from reconciler.kubernetes.types.scaled_service import ScaledService

ITEM = ScaledService(ObjectMeta("web", "shop", uid="of-item"))
PORT = ServicePort("http", 80, target_port=8080)
WEB = Service(ObjectMeta("web", "shop", uid="of-service"), ServiceSpec(ports=(PORT,), selector={"app": "web"}))


def slice_of(*proxies: Endpoint) -> Body:
    (body,) = proxy_slices(ITEM, WEB, proxies, 12000).values()
    return body


@pytest.mark.parametrize("body", [companion(ITEM, WEB), slice_of()], ids=["companion", "slice"])
def test_objects_end_with_both_of_their_owners(body: Body) -> None:
    """A foreground deletion of the ScaledService alone must leave them until the Service has its pods back."""
    owners = body["metadata"]["ownerReferences"]
    assert [(one["kind"], one["uid"]) for one in owners] == [("ScaledService", "of-item"), ("Service", "of-service")]
    assert [one.get("controller", False) for one in owners] == [True, False]


@pytest.mark.parametrize(
    ("serving", "terminating", "expected"),
    [
        (True, False, {"ready": True, "serving": True, "terminating": False}),
        (True, True, {"ready": False, "serving": True, "terminating": True}),
        (False, False, {"ready": False, "serving": False, "terminating": False}),
    ],
    ids=["ready", "draining", "starting"],
)
def test_proxy_that_drains_gets_connections_only_without_another(
    serving: bool, terminating: bool, expected: dict[str, bool]
) -> None:
    """The Service of the proxies calls all of them ready; clients prefer those that are, and then those that serve."""
    conditions = EndpointConditions(ready=True, serving=serving, terminating=terminating)
    (endpoint,) = slice_of(Endpoint(("10.0.0.1",), conditions))["endpoints"]
    assert endpoint["conditions"] == expected
