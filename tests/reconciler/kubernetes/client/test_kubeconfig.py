"""Kubeconfigs of all kinds, against real HTTP and TLS servers: each is understood as kubectl understands it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from reconciler.kubernetes.client.api import Api, connect
from reconciler.kubernetes.client.errors import NoCluster
from tests.certificates import Authority
from tests.servers import answering_gets


class Recorder:
    """A server that records the requests it answers, and the common names of client certificates."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[web.Request] = []
        self.names: list[str] = []
        self.refused: set[str] = set()
        """Common names that get 401, as an expired certificate does."""

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        shown = request.transport.get_extra_info("peercert") if request.transport else None
        name = dict(entry[0] for entry in shown["subject"])["commonName"] if shown else ""
        self.names.append(name)
        return web.json_response({}, status=401 if name in self.refused else 200)


@asynccontextmanager
async def recording(context: ssl.SSLContext | None = None) -> AsyncIterator[Recorder]:
    made = Recorder()
    async with answering_gets(made.answer, context) as made.url:
        yield made


@pytest.fixture
async def server() -> AsyncIterator[Recorder]:
    async with recording() as made:
        yield made


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Recorder]:
    """Provide a TLS server, whose certificate is for api.internal and not for its address."""
    authority = Authority(tmp_path / "authority")
    files = authority.sign(tmp_path / "server", "api.internal")
    for name in ("first", "second"):
        authority.sign(tmp_path / name, name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files / "ca.crt")
    context.load_cert_chain(files / "tls.crt", files / "tls.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    async with recording(context) as made:
        yield made


def written(folder: Path, server: str, user: dict[str, Any] | None = None, name: str = "ours", **cluster: Any) -> Path:
    """Write a kubeconfig with one context of this name, which is the current one."""
    folder.mkdir(exist_ok=True)
    context = {"cluster": name, "namespace": name, **({} if user is None else {"user": name})}
    content = {
        "current-context": name,
        "contexts": [{"name": name, "context": context}],
        "clusters": [{"name": name, "cluster": {"server": server, **cluster}}],
        "users": [] if user is None else [{"name": name, "user": user}],
    }
    file = folder / f"{name}.kubeconfig"
    file.write_text(json.dumps(content))
    return file


@asynccontextmanager
async def connected(kubeconfig: Path | None = None, context: str | None = None) -> AsyncIterator[Api]:
    api = await connect(kubeconfig, context)
    try:
        yield api
    finally:
        await api.close()


def plugin(folder: Path, script: str, **more: Any) -> dict[str, Any]:
    """Return a user with an exec plugin, which is named by its path from the kubeconfig."""
    (folder / "plugin").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "plugin").chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", **more}}


def credential(**status: str) -> str:
    return json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})


async def test_impersonated_user_is_sent_with_each_request(server: Recorder, tmp_path: Path) -> None:
    extra = {"example.com/Team": ["edge", "core"]}
    user = {"token": "t", "as": "jane", "as-uid": "7", "as-groups": ["dev", "ops"], "as-user-extra": extra}
    async with connected(written(tmp_path, server.url, user)) as api:
        await api.get("/version")
    headers = server.requests[0].headers
    assert headers["Authorization"] == "Bearer t"
    assert (headers["Impersonate-User"], headers["Impersonate-Uid"]) == ("jane", "7")
    assert headers.getall("Impersonate-Group") == ["dev", "ops"]
    assert headers.getall("Impersonate-Extra-example.com%2Fteam") == ["edge", "core"]


async def test_token_file_wins_and_is_read_again(server: Recorder, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    async with connected(written(tmp_path, server.url, {"token": "old", "tokenFile": "token"})) as api:
        await api.get("/version")
        (tmp_path / "token").write_text("the second\n")
        await api.get("/version")
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer first", "Bearer the second"]


async def test_context_without_user_is_anonymous(server: Recorder, tmp_path: Path) -> None:
    async with connected(written(tmp_path, server.url)) as api:
        await api.get("/version")
    assert "Authorization" not in server.requests[0].headers


async def test_first_of_several_files_chooses_the_context(
    server: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.write_text('{"current-context": "", "contexts": null}')
    files = [tmp_path / "missing", empty, written(tmp_path, server.url, {}), written(tmp_path, "http://b", {}, "other")]
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, files)))
    async with connected() as api:
        assert (api.server, api.namespace) == (server.url, "ours")
    async with connected(context="other") as api:
        assert (api.server, api.namespace) == ("http://b", "other")


async def test_kubeconfig_comes_before_the_service_account(
    server: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("of the pod")
    monkeypatch.setattr("reconciler.kubernetes.client.credentials.SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(written(tmp_path, server.url)))
    async with connected() as api:
        assert api.server == server.url


async def test_paths_are_relative_to_the_file_that_has_them(
    secured: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: dict[str, Any] = {"certificate-authority": "ca.crt", "tls-server-name": "api.internal"}
    cluster = written(tmp_path / "second", f"{secured.url}/k8s/clusters/c-1/", **server)
    content = json.loads(cluster.read_text())
    content["contexts"][0]["context"]["user"] = "me"
    cluster.write_text(json.dumps(content))
    users = tmp_path / "first" / "users"
    user = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    users.write_text(json.dumps({"users": [{"name": "me", "user": user}]}))
    monkeypatch.setenv("KUBECONFIG", f"{users}:{cluster}")
    async with connected() as api:
        await api.get("/version")
    assert secured.names == ["first"]
    assert secured.requests[0].path == "/k8s/clusters/c-1/version"


async def test_unverified_server_is_accepted_if_configured(secured: Recorder, tmp_path: Path) -> None:
    unverified: dict[str, Any] = {"insecure-skip-tls-verify": True}
    async with connected(written(tmp_path, secured.url, **unverified)) as api:
        await api.get("/version")
    assert len(secured.requests) == 1


async def test_client_certificate_of_a_plugin_is_renewed(secured: Recorder, tmp_path: Path) -> None:
    for name in ("first", "second"):
        certificate, key = ((tmp_path / name / file).read_text() for file in ("tls.crt", "tls.key"))
        (tmp_path / f"{name}.json").write_text(credential(clientCertificateData=certificate, clientKeyData=key))
    now = tmp_path / "now.json"
    now.symlink_to("first.json")
    authority = base64.b64encode((tmp_path / "first" / "ca.crt").read_bytes()).decode()
    cluster = {"certificate-authority-data": authority, "tls-server-name": "api.internal"}
    file = written(tmp_path, secured.url, plugin(tmp_path, f"cat {now}"), **cluster)
    async with connected(file) as api:
        await api.get("/version")
        secured.refused.add("first")
        now.unlink()
        now.symlink_to("second.json")
        await api.get("/version")
    assert secured.names == ["first", "first", "second"]


async def test_plugin_receives_the_cluster_if_configured(server: Recorder, tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = f"printf %s \"$KUBERNETES_EXEC_INFO\" >{said}; echo '{credential(token='t')}'"
    settings = {"provideClusterInfo": True, "interactiveMode": "Never"}
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "us"}}
    file = written(tmp_path, server.url, plugin(tmp_path, script, **settings), extensions=[extension])
    async with connected(file) as api:
        await api.get("/version")
    info = json.loads(said.read_text())
    assert info["kind"] == "ExecCredential" and info["spec"]["interactive"] is False
    assert info["spec"]["cluster"] == {"server": server.url, "config": {"audience": "us"}}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "cannot be run: No such file or directory; install it from example.com"),
        ("echo 'token has expired, log in' >&2; exit 3", "failed with exit code 3: token has expired, log in"),
        ("echo nonsense", "returned no credentials"),
        (f"echo '{credential(clientCertificateData='c')}'", "status.clientKeyData"),
    ],
)
async def test_plugin_that_fails_is_explained(tmp_path: Path, script: str | None, words: str) -> None:
    user = plugin(tmp_path, script or "", installHint="install it from example.com")
    if script is None:
        (tmp_path / "plugin").unlink()
    with pytest.raises(NoCluster) as refused:
        await connect(written(tmp_path, "http://a", user))
    assert f"{tmp_path}/plugin" in str(refused.value) and words in str(refused.value)


async def test_plugin_shows_its_login_on_a_terminal(server: Recorder, tmp_path: Path) -> None:
    script = f"echo 'log in at login.example' >&2; echo '{credential(token='t')}'"
    file = written(tmp_path, server.url, plugin(tmp_path, script))
    terminal, theirs = os.openpty()
    command = (Path(sys.executable).parent / "zenvoy", "status", "--kubeconfig", file)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    async with asyncio.timeout(60):
        await process.wait()
    try:
        assert b"log in at login.example" in os.read(terminal, 4096)
    finally:
        os.close(terminal)


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        ({"tokenFile": "missing"}, {}, "missing"),
        ({"client-certificate": "missing", "client-key": "missing"}, {}, "missing"),
        ({"client-certificate-data": "bm8=", "client-key-data": "bm8="}, {}, "no cluster found"),
        ({}, {"certificate-authority-data": "bm8="}, "no cluster found"),
        ({}, {"certificate-authority-data": "&"}, "no cluster found"),
        ({}, {"certificate-authority": "missing"}, "missing"),
        ({}, {"proxy-url": "socks5://127.0.0.1:1080"}, "the proxy-url of the kubeconfig is a socks5 proxy"),
        ({}, {"server": ""}, "cluster 'ours' of context 'ours' has no server"),
        ({"exec": {"args": ["token"]}}, {}, "is not a valid kubeconfig"),
    ],
)
async def test_unusable_context_is_explained(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, str], words: str
) -> None:
    settings: dict[str, Any] = {"server": "https://a", "user": user, **cluster}
    with pytest.raises(NoCluster) as refused:
        await connect(written(tmp_path, **settings))
    assert words in str(refused.value)


async def test_unknown_context_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NoCluster) as refused:
        await connect(written(tmp_path, "http://a"), "theirs")
    assert "context 'theirs' does not exist; the kubeconfig has 'ours'" in str(refused.value)


async def test_socks_proxy_of_the_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:secret@127.0.0.1:1080")
    with pytest.raises(NoCluster, match="the proxy of the environment is a socks5 proxy") as refused:
        await connect(written(tmp_path, "https://a"))
    assert "secret" not in str(refused.value)
