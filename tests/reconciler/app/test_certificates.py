"""Certificates of a replica: files that are replaced."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from reconciler.app import certificates
from reconciler.app.certificates import MountedCertificates
from reconciler.app.envoy_bootstrap import make_join, write
from reconciler.core.access import PROXY, RECONCILER, envoy
from reconciler.server.credentials.material import Files, NoCertificates
from tests.certificates import Authority

NAME = "zenvoy-reconciler.zenvoy-system.svc"


def files_in(directory: Path) -> Files:
    return Files(directory / "tls.crt", directory / "tls.key", directory / "ca.crt")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


async def test_mounted_files_replaced_are_used(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "READ_SECONDS", 0.01)
    mounted = MountedCertificates(files_in(authority.sign(tmp_path / "tls", NAME, RECONCILER.uri)))
    before, running = mounted.read(), asyncio.create_task(mounted.run())
    with structlog.testing.capture_logs() as logs:
        (tmp_path / "tls" / "tls.key").write_text("half of a replacement")
        async with asyncio.timeout(60):
            while not logs:
                await asyncio.sleep(0.01)
    assert "the previous ones stay in use" in logs[0]["event"]
    assert mounted.read() == before
    authority.sign(tmp_path / "tls", NAME, RECONCILER.uri)
    async with asyncio.timeout(60):
        while mounted.read() == before:
            await asyncio.sleep(0.01)
    assert mounted.expiries.keys() == {"ca", "reconciler"}
    running.cancel()


def test_mounted_certificate_of_proxy_is_refused(authority: Authority, tmp_path: Path) -> None:
    files = files_in(authority.sign(tmp_path / "tls", NAME, PROXY.uri))
    with pytest.raises(NoCertificates, match="is that of spiffe://zenvoy/proxy, not of a reconciler"):
        MountedCertificates(files)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        (PROXY.uri, ""),
        (envoy("edge-1").uri, ""),
        (envoy("edge-2").uri, "the certificate is for node id edge-2, not edge-1"),
        (RECONCILER.uri, "not of a proxy or envoy"),
        ("", "has no URI SAN of zenvoy"),
    ],
)
def test_bootstrap_refuses_certificate_of_other_role(
    authority: Authority, tmp_path: Path, uri: str, error: str
) -> None:
    signed, directory = authority.sign(tmp_path / "tls", "edge-1", uri), tmp_path / "envoy"
    directory.mkdir()
    paths = [str(signed / name) for name in ("tls.crt", "tls.key", "ca.crt")]

    def written() -> list[Path]:
        join = make_join(
            f"{NAME}:18000",
            "edge-1",
            "127.0.0.1:9901",
            mode="delta",
            stats=None,
            certificates=paths,
            server_name=None,
            open_files=1024,
            directory=directory,
        )
        return write(join, directory)

    if error:
        with pytest.raises(NoCertificates, match=error):
            written()
    else:
        assert directory / "envoy.yaml" in written()
