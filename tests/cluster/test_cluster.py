"""The cluster that the tests stand on."""

from __future__ import annotations

import json

import pytest

from reconciler.adapters.kubernetes.api import Api, Unreachable
from tests.cluster.harness import Cluster


async def test_what_is_made_is_there_after_the_api_server_was_gone(
    api: Api, apiserver: Cluster, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    await api.call("POST", path, {"metadata": {"name": "kept"}, "data": {"a": "b"}})
    apiserver.stop_apiserver()
    with pytest.raises(Unreachable):
        await api.get(f"{path}/kept")
    apiserver.start_apiserver()
    assert json.loads(await api.get(f"{path}/kept"))["data"] == {"a": "b"}
