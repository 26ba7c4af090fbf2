"""gRPC with mutual TLS: accepted and refused clients, and replaced certificates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from reconciler.core.access import RECONCILER
from reconciler.server.credentials.material import Files, NoCertificates, Server, channel
from tests.certificates import Authority
from tproxy.control.stream import TlsFiles as HolderTls
from tproxy.control.stream import open_channel

NAME = "zenvoy-reconciler.zenvoy-system.svc"
METHOD = "/test.Echo/Say"


def files_in(directory: Path) -> Files:
    return Files(directory / "tls.crt", directory / "tls.key", directory / "ca.crt")


@asynccontextmanager
async def echoing(files: Files) -> AsyncIterator[int]:
    """Run a server that echoes each message; yield its port."""

    async def say(request: bytes, _: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(say)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),))
    port = server.add_secure_port("127.0.0.1:0", Server(files.read).credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def said(port: int, credentials: grpc.ChannelCredentials) -> bytes:
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as made:
        answer: bytes = await made.unary_unary(METHOD)(b"hello", timeout=60)
    return answer


async def test_tls_both_ends_are_authenticated(tmp_path: Path) -> None:
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    server = files_in(ours.sign(tmp_path / "server", NAME, RECONCILER.uri))
    holder, stranger = ours.sign(tmp_path / "holder", "holder"), others.sign(tmp_path / "stranger", "holder")
    (stranger / "ca.crt").write_bytes((holder / "ca.crt").read_bytes())
    async with echoing(server) as port:
        assert await said(port, channel(files_in(holder).read())) == b"hello"
        for invalid in (
            channel(files_in(stranger).read()),
            grpc.ssl_channel_credentials((holder / "ca.crt").read_bytes()),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await said(port, invalid)


async def test_tls_new_certificate_is_used_without_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server, holder = (
        authority.sign(tmp_path / "server", NAME, RECONCILER.uri),
        authority.sign(tmp_path / "holder", "holder"),
    )
    files = files_in(server)
    async with echoing(files) as port:
        before = (await _shown(port, holder), await said(port, channel(files_in(holder).read())))
        authority.sign(server, NAME, RECONCILER.uri)
        after = (await _shown(port, holder), await said(port, channel(files_in(holder).read())))
    assert before[0] != after[0] == ssl.PEM_cert_to_DER_cert((server / "tls.crt").read_text())
    assert before[1] == after[1] == b"hello"


async def _shown(port: int, client: Path) -> bytes:
    """Return the certificate of the server, as DER."""

    context = ssl.create_default_context(cafile=str(client / "ca.crt"))
    context.load_cert_chain(client / "tls.crt", client / "tls.key")
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
    try:
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    return shown


def test_files_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoCertificates, match=r"tls\.crt: No such file or directory"):
        files_in(tmp_path).read()


def test_files_key_of_another_pair_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    first, other = (authority.sign(tmp_path / name, NAME) for name in ("first", "other"))
    (first / "tls.key").write_bytes((other / "tls.key").read_bytes())
    with pytest.raises(NoCertificates, match="the key does not belong to the certificate"):
        files_in(first).read()


def test_files_without_role_are_refused_with_remedy(tmp_path: Path) -> None:
    signed = Authority(tmp_path / "authority").sign(tmp_path / "signed", NAME, uri="")
    with pytest.raises(
        NoCertificates, match="has no URI SAN of zenvoy; issue it with one of spiffe://zenvoy/reconciler"
    ):
        files_in(signed).read()


async def test_tls_holder_connects(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server, holder = (
        authority.sign(tmp_path / "server", NAME, RECONCILER.uri),
        authority.sign(tmp_path / "holder", "holder"),
    )
    files = HolderTls(holder / "tls.crt", holder / "tls.key", holder / "ca.crt", NAME)
    async with echoing(files_in(server)) as port:

        def ask() -> bytes:
            with open_channel(f"127.0.0.1:{port}", [], files) as made:
                answer: bytes = made.unary_unary(METHOD)(b"hello", timeout=60)
            return answer

        assert await asyncio.to_thread(ask) == b"hello"


async def test_server_authority_replaced_refuses_old_client(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    server, holder = old.sign(tmp_path / "server", NAME, RECONCILER.uri), old.sign(tmp_path / "holder", "holder")
    trusts_both = channel(replace(files_in(holder).read(), authority=old.certificate + new.certificate))
    async with echoing(files_in(server)) as port:
        assert await said(port, trusts_both) == b"hello"
        new.sign(server, NAME, RECONCILER.uri)
        with pytest.raises(grpc.aio.AioRpcError):
            await said(port, trusts_both)
        new.sign(holder, "holder")
        assert await said(port, channel(files_in(holder).read())) == b"hello"
