"""Credentials that change while they are used, with a real HTTP server, real files and a real exec plugin."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from reconciler.kubernetes.client.api import Api, connect
from reconciler.kubernetes.client.credentials import TokenFile
from reconciler.kubernetes.client.errors import ApiError
from tests.certificates import without_key_identifiers
from tests.servers import answering_gets


class Server:
    """An API server that accepts one token."""

    def __init__(self) -> None:
        self.token = "first"
        self.requests = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"reason": "Unauthorized", "message": "Unauthorized"}, status=401)
        return web.Response(text="{}\n")


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    made = Server()
    async with answering_gets(made.answer, context) as made.url:
        yield made


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made


def kubeconfig(folder: Path, server: str, authority: Path | None = None) -> Path:
    """Write a kubeconfig whose exec plugin returns the content of the file `token`, and counts its runs in `runs`."""
    plugin = folder / "plugin"
    plugin.write_text(f"""#!/bin/sh
echo run >> {folder}/runs
printf '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"%s"}}}}' \\
  "$(cat {folder}/token)"
""")
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    contexts = [
        {"name": name, "context": {"cluster": name, "user": "me", "namespace": name}} for name in ("ours", "other")
    ]
    clusters = [
        {
            "name": "ours",
            "cluster": {"server": server, **({"certificate-authority": str(authority)} if authority else {})},
        },
        {"name": "other", "cluster": {"server": "http://127.0.0.1:1"}},
    ]
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "ours",
        "contexts": contexts,
        "clusters": clusters,
        "users": [{"name": "me", "user": user}],
    }
    found = folder / "kubeconfig"
    found.write_text(json.dumps(content))
    return found


async def test_exec_plugin_is_asked_again_for_expired_token(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first")
    file = kubeconfig(tmp_path, server.url)
    api = await connect(file)
    try:
        await api.get("/version")
        server.token = "second"
        (tmp_path / "token").write_text("second")
        file.write_text(file.read_text().replace('"current-context": "ours"', '"current-context": "other"'))
        answers = await asyncio.gather(*(api.get("/version") for _ in range(5)))
        assert answers == [b"{}\n"] * 5
        assert (tmp_path / "runs").read_text().count("run") == 2, "calls that fail together ask once"
    finally:
        await api.close()


async def test_watch_with_expired_token_is_opened_with_the_next(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first")
    api = await connect(kubeconfig(tmp_path, server.url))
    try:
        server.token = "second"
        (tmp_path / "token").write_text("second")
        async with api.lines("/api/v1/pods", {"watch": "1"}, 10) as lines:
            assert [line async for line in lines] == [b"{}"]
    finally:
        await api.close()


async def test_token_that_stays_refused_is_reported(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("revoked")
    api = await connect(kubeconfig(tmp_path, server.url))
    try:
        with pytest.raises(ApiError) as refused:
            await api.get("/version")
        assert refused.value.status == 401 and server.requests == 1
    finally:
        await api.close()


async def test_token_file_is_read_again_when_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    file = TokenFile(tmp_path / "token")
    assert file.read() == "first"
    (tmp_path / "new").write_text("second\n")
    os.utime(tmp_path / "new", (0, 0))  # as after the clock was set back
    os.replace(tmp_path / "new", tmp_path / "token")
    assert file.read() == "second"
    (tmp_path / "token").unlink()
    assert file.read() == "second"


def test_token_file_that_never_existed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TokenFile(tmp_path / "token").read()


async def test_cluster_ca_without_key_identifier_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 sets the flag by default, and then refuses the certificates of many clusters."""
    lenient = ssl.create_default_context

    def strict(*arguments: Any, **options: Any) -> ssl.SSLContext:
        context = lenient(*arguments, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    authority, pair = without_key_identifiers(tmp_path)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(pair)
    async with serving(own) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ssl.SSLCertVerificationError, match="Missing Authority Key Identifier"):
            await asyncio.open_connection("127.0.0.1", port, ssl=strict(cafile=authority))
        (tmp_path / "token").write_text("first")
        api = await connect(kubeconfig(tmp_path, server.url, authority))
        try:
            assert await api.get("/version") == b"{}\n"
        finally:
            await api.close()


async def test_api_in_a_pod_ignores_the_proxy_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "10.96.0.0/12")
    configuration = Configuration(host=server.url, api_key={"BearerToken": "Bearer first"})
    api = Api(configuration, "shop")
    try:
        assert await api.get("/version") == b"{}\n"
    finally:
        await api.close()
