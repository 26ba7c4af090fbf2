"""Envoy bootstraps from the options of `zenvoy bootstrap`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from reconciler.core.access import Role, envoy
from reconciler.server.credentials.material import Files, NoCertificates, check
from xds.bootstrap.document import Join, Tls, as_json, as_yaml, files


def make_join(
    reconciler: str,
    node: str,
    admin: str,
    *,
    mode: Literal["delta", "sotw"],
    stats: str | None,
    certificates: Sequence[str | None],
    server_name: str | None,
    open_files: int,
    directory: Path | None,
) -> Join:
    """Return the settings of an Envoy's bootstrap, of which `reconciler` and `certificates` are not validated.

    `certificates` are the paths of the certificate, the key, and the authorities. Raises `ValueError`.
    """
    if any(certificates) and directory is None:
        raise ValueError(
            "certificates need --directory: Envoy reloads certificates only through files that point to them"
        )
    host, port = _target(reconciler)
    tls = _tls(certificates, node, server_name or host, directory) if directory and any(certificates) else None
    return Join(node, host, port, admin, mode=mode, stats=stats, tls=tls, open_files=open_files)


def text(join: Join, as_json_text: bool) -> str:
    """Return the bootstrap as YAML or JSON. Raises `ValueError`."""
    return as_json(join) if as_json_text else as_yaml(join)


def write(join: Join, directory: Path) -> list[Path]:
    """Write `envoy.yaml`, and the files that it refers to, into a directory. Raises `ValueError` and `OSError`."""
    written = []
    for name, content in files(join).items():
        path = directory.absolute() / name
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def _tls(certificates: Sequence[str | None], node: str, server_name: str, directory: Path) -> Tls:
    certificate, key, authority = certificates
    if not (certificate and key and authority):
        raise ValueError("--tls-cert, --tls-key and --tls-ca go together: both ends authenticate")
    for path in (certificate, key, authority):
        if not Path(path).is_absolute():
            raise ValueError(f"{path}: not an absolute path; write it as an absolute path, as Envoy sees it")
    if Path(certificate).exists():  # Envoy may run on another machine, or see another path
        mounted = Files(Path(certificate), Path(key), Path(authority))
        found = check(mounted.read(), str(mounted.certificate), Role.PROXY, Role.ENVOY)
        if found.role is Role.ENVOY and found.node != node:
            raise NoCertificates(
                f"{mounted.certificate}: the certificate is for node id {found.node}, not {node}; "
                f"use --node {found.node}, or a certificate with the URI SAN {envoy(node).uri}"
            )
    return Tls(certificate, key, authority, server_name, str(directory.absolute()))


def _target(text: str) -> tuple[str, int]:
    if text.startswith("unix:"):
        return text, 0
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"--reconciler: {text!r} is not host:port; write it as host:port, for example 127.0.0.1:18000")
    return host, int(port)
