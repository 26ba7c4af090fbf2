"""Joining a `zenvoy up` from another machine: the requirements of `--grpc`, and the accepted peers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from reconciler.core.access import PREFIX, PROXY, RECONCILER
from tests.certificates import Authority
from tests.e2e.conftest import Start
from tests.e2e.harness import Zenvoy, quick, until
from tests.ports import free_port
from tests.security.grpc_port import ADS, HOLDER, introduces
from tproxy import wire

LOCAL = "127.0.0.1"
EDGE = "spiffe://zenvoy/envoy/edge-1"
NAME = "zenvoy.example"
WEB = {"name": "web", "command": quick("http")}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def options_of(directory: Path) -> tuple[str, ...]:
    pairs = zip(("--tls-cert", "--tls-key", "--tls-ca"), ("tls.crt", "tls.key", "ca.crt"), strict=True)
    return tuple(word for option, file in pairs for word in (option, str(directory / file)))


def refused(zenvoy: Start, *options: str) -> str:
    """Start with these options, and return the error."""
    z = zenvoy(WEB, start=False)
    done = z.cli("up", str(z.file), *options)
    assert done.returncode == 2
    return " ".join(done.stderr.replace("│", "").split())


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_open_port_without_certificates_is_refused(zenvoy: Start, address: str) -> None:
    said = refused(zenvoy, "--grpc", f"{address}:{free_port()}")
    assert "--tls-cert, --tls-key and --tls-ca" in said
    assert "127.0.0.1" in said


def test_unusable_certificates_are_refused(zenvoy: Start, authority: Authority, tmp_path: Path) -> None:
    grpc_port = ("--grpc", f"0.0.0.0:{free_port()}")
    good = authority.sign(tmp_path / "good", NAME, RECONCILER.uri)
    assert "together" in refused(zenvoy, *grpc_port, "--tls-cert", str(good / "tls.crt"))
    assert "--grpc" in refused(zenvoy, *options_of(good))
    assert "No such file" in refused(zenvoy, *grpc_port, *options_of(tmp_path / "none"))
    assert PROXY.uri in refused(zenvoy, *grpc_port, *options_of(authority.sign(tmp_path / "proxy", NAME)))


class Caller:
    """Dials the port of a `zenvoy up`, with a certificate of that URI."""

    def __init__(self, z: Zenvoy, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.z = z
        options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
        if credentials:
            self._channel = grpc.secure_channel(target, credentials, options)
        else:
            self._channel = grpc.insecure_channel(target, options)

    def joins(self, method: str, name: str) -> Any:
        """Open a stream under that name, and leave it open."""
        messages: SimpleQueue[bytes | None] = SimpleQueue()
        messages.put(introduces(method, name))
        return self._channel.stream_stream(method)(iter(messages.get, None), timeout=60)

    def is_refused(self, method: str, name: str) -> tuple[grpc.StatusCode, str]:
        call = self.joins(method, name)
        with pytest.raises(grpc.RpcError):
            next(call)
        return call.code(), call.details()

    def close(self) -> None:
        self._channel.close()


def credentials(directory: Path) -> grpc.ChannelCredentials:
    files = ((directory / file).read_bytes() for file in ("ca.crt", "tls.key", "tls.crt"))
    return grpc.ssl_channel_credentials(*files)


def known(z: Zenvoy) -> list[str]:
    found = z.ask("GET", "/v1/services")
    return sorted({*(one["id"] for one in found["envoys"]), *found["holders"]})


@pytest.fixture
def callers(zenvoy: Start, authority: Authority, tmp_path: Path) -> Iterator[dict[str, Caller]]:
    """Provide peers of a `zenvoy up` with mutual TLS on all addresses, by their URI."""
    port = free_port()
    server = authority.sign(tmp_path / "server", NAME, RECONCILER.uri)
    z = zenvoy(WEB, options=("--grpc", f"0.0.0.0:{port}", *options_of(server)))
    uris = {"edge": EDGE, "local": f"{PREFIX}envoy/local", "proxy": PROXY.uri, "none": "", "stranger": None}
    made = {}
    for name, uri in uris.items():
        issued = None if uri is None else credentials(authority.sign(tmp_path / name, name, uri))
        made[name] = Caller(z, f"{LOCAL}:{port}", issued)
    yield made
    for caller in made.values():
        caller.close()


def test_port_with_certificates_lets_named_envoys_in_only(callers: dict[str, Caller]) -> None:
    z = callers["edge"].z
    denied = grpc.StatusCode.PERMISSION_DENIED
    for method in (ADS, HOLDER):
        assert callers["stranger"].is_refused(method, "edge-1")[0] is grpc.StatusCode.UNAVAILABLE
        assert callers["none"].is_refused(method, "edge-1")[0] is denied
        code, details = callers["proxy"].is_refused(method, "edge-1")
        assert code is denied
        assert "spiffe://zenvoy/envoy/<node-id>" in details
        for name in ("edge-2", "local"):
            assert callers["edge"].is_refused(method, name)[0] is denied
        assert callers["local"].is_refused(method, "local")[0] is denied, "regardless of its certificate"
    assert known(z) == ["local"]
    call = callers["edge"].joins(HOLDER, "edge-1")
    assert wire.DOWN.decode(next(call)).full
    until("it is known", lambda: known(z) == ["edge-1", "local"])
    call.cancel()


def test_loopback_port_reserves_names_of_this_machine(zenvoy: Start) -> None:
    """Another user of the machine takes no name of the Envoy and the holder of `up` itself, whenever it comes."""
    port = free_port()
    z = zenvoy(WEB, options=("--grpc", f"{LOCAL}:{port}"))
    caller = Caller(z, f"{LOCAL}:{port}", None)
    try:
        for method in (ADS, HOLDER):
            assert caller.is_refused(method, "local")[0] is grpc.StatusCode.PERMISSION_DENIED
            for name in ("edge\n12:00:00.000  serving", "\x1b[2J", "edge\u202e"):
                assert caller.is_refused(method, name)[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert known(z) == ["local"]
    finally:
        caller.close()
