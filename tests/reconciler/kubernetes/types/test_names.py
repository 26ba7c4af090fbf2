"""Text that becomes part of a URL of the API server: only names do, so that it leads nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st
from kubernetes.aio.client import Configuration
from yarl import URL

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import Unreachable
from reconciler.kubernetes.types.objects import InvalidName, Target, api_path, checked_path, name_selector, path

NO_NAMES = (
    "",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/b",
    "/a",
    "a/",
    "a//b",
    "%2e%2e",
    "a%2fb",
    "a?b",
    "a#b",
    "a;b",
    "a,b",
    "a=b",
    "a\\b",
    "a b",
    "a\n",
    "a\x00",
    "a\u202eb",
    "\uff21",
    "\uff41",
    "-a",
    "a-",
    "a..b",
    "A",
    "a" * 254,
)
texts = st.one_of(st.text(), st.text("ab./%2fe?#;:\\-", max_size=12), st.sampled_from(NO_NAMES))


@pytest.mark.parametrize("text", NO_NAMES)
def test_path_invalid_name_raises(text: str) -> None:
    for parts in (
        ("apps/v1", "deployments", text),
        ("apps/v1", "deployments", "shop", text),
        ("apps/v1", "deployments", "shop", "web", text),
        ("apps/v1", text),
        (f"apps/{text}", "deployments"),
        (f"{text}/v1", "deployments"),
    ):
        with pytest.raises(InvalidName):
            path(*parts)
    calls: list[Callable[[], object]] = [
        lambda: api_path(f"{text}/v1"),
        lambda: path("v1", "pods", text, "pod", "portforward"),
        lambda: path("v1", "pods", "shop", text, "portforward"),
        lambda: name_selector("metadata.name", text),
    ]
    for refused in calls:
        with pytest.raises(InvalidName):
            refused()


@given(texts, texts, texts, texts)
@example("apps/v1", "deployments", "shop", "web")
def test_path_any_valid_names_needs_no_escaping(version: str, plural: str, namespace: str, name: str) -> None:
    try:
        built = path(version, plural, namespace, name, "scale")
    except InvalidName:
        return
    assert checked_path(built) == built == URL(f"https://api{built}").raw_path
    *_, within, of, kind, own, part = built.split("/")
    assert (within, of, kind, own, part) == ("namespaces", namespace, plural, name, "scale")


@given(texts)
def test_checked_path_valid_is_requested_unchanged(text: str) -> None:
    try:
        checked = checked_path(text)
    except InvalidName:
        return
    requested = URL(f"https://api{checked}")
    assert (requested.raw_path, requested.query_string, requested.fragment, requested.host) == (text, "", "", "api")


@pytest.mark.parametrize(
    "name", ["web", "a", "0", "web-1", "web.example.com", "a" * 253, "system-node-1.2.3", "web-fbd89f447-4gxfk"]
)
def test_path_valid_names_follows_api_layout(name: str) -> None:
    assert path("apps/v1", "deployments", "shop", name) == f"/apis/apps/v1/namespaces/shop/deployments/{name}"
    assert path("v1", "nodes", name=name, subresource="status") == f"/api/v1/nodes/{name}/status"
    forward = path("v1", "pods", "shop", name, "portforward")
    assert forward == f"/api/v1/namespaces/shop/pods/{name}/portforward"


@pytest.mark.parametrize(
    ("target", "part"),
    [
        (Target("apps/v1", "Deployment", "web", "shop"), None),
        (Target("v1", "ReplicationController", "web.a", "shop"), None),
        (Target("argoproj.io/v1alpha1", "Rollout", "0", "shop"), None),
        (Target("/v1", "Deployment", "web", "shop"), "apiVersion"),
        (Target("apps/v1/x", "Deployment", "web", "shop"), "apiVersion"),
        (Target("apps/v1", "Deployment/x", "web", "shop"), "kind"),
        (Target("apps/v1", "Deployment", "../web", "shop"), "name"),
    ],
)
def test_target_invalid_part_is_named(target: Target, part: str | None) -> None:
    assert (target.invalid[0] if target.invalid else None) == part


@pytest.fixture
async def asked() -> AsyncIterator[tuple[Api, list[str]]]:
    """A client, and the paths that its server was asked for; `/redirect` leads to `/elsewhere`."""
    paths: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        paths.append(request.raw_path)
        if request.path == "/redirect":
            raise web.HTTPTemporaryRedirect("/elsewhere")
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    api = Api(Configuration(host=f"http://{host}:{port}"), "shop")
    yield api, paths
    await api.close()
    await runner.cleanup()


async def test_api_path_with_dots_is_not_sent(asked: tuple[Api, list[str]]) -> None:
    api, paths = asked
    for bad in ("/api/../x", "/api/%2e%2e/x", "/api//x", "/api?x", "/api#x", "api", "", "/", "//other/x", "/api/x\n"):
        with pytest.raises(InvalidName):
            await api.call("PATCH", bad, {})
        with pytest.raises(InvalidName):
            await api.get(bad, {"watch": "1"})
    assert paths == []
    await api.get("/apis/apps/v1", {"fieldSelector": "metadata.name=web&x=1#y"})
    assert paths == ["/apis/apps/v1?fieldSelector=metadata.name%3Dweb%26x%3D1%23y"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "POST", "DELETE"])
async def test_api_redirect_raises(asked: tuple[Api, list[str]], method: str) -> None:
    api, paths = asked
    with pytest.raises(Unreachable, match="refused a redirect to '/elsewhere'"):
        await api.call(method, "/redirect", {})
    assert paths == ["/redirect"]
