"""An Envoy bootstrap from what a person types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reconciler.core.identity import Role, envoy
from reconciler.server.credentials import Files, NoCertificates
from reconciler.server.credentials.material import check
from xds.bootstrap.document import USUAL_OPEN_FILES, Join, Tls, as_json, as_yaml, files


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """The options of `zenvoy bootstrap`, as they were typed."""

    reconciler: str
    node: str
    admin: str
    mode: Literal["delta", "sotw"]
    stats: str | None = None
    certificate: str | None = None
    key: str | None = None
    authority: str | None = None
    server_name: str | None = None
    open_files: int = USUAL_OPEN_FILES


def text(asked: BootstrapOptions, as_json_text: bool) -> str:
    """The bootstrap as YAML or JSON. Raises `ValueError` when an address is none."""
    if asked.certificate or asked.key or asked.authority:
        raise ValueError(
            "certificates need --directory: Envoy reads them anew only if other files point to them, which go there"
        )
    join = _join(asked, None)
    return as_json(join) if as_json_text else as_yaml(join)


def write(asked: BootstrapOptions, directory: Path) -> list[Path]:
    """Write `envoy.yaml`, and what it points to, into a directory. Raises `ValueError` and `OSError`."""
    directory = directory.absolute()
    written = []
    for name, content in files(_join(asked, directory)).items():
        path = directory / name
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def _join(asked: BootstrapOptions, directory: Path | None) -> Join:
    host, port = _target(asked.reconciler)
    return Join(
        asked.node,
        host,
        port,
        asked.admin,
        mode=asked.mode,
        stats=asked.stats,
        tls=_tls(asked, host, directory),
        open_files=asked.open_files,
    )


def _tls(asked: BootstrapOptions, host: str, directory: Path | None) -> Tls | None:
    certificate, key, authority = asked.certificate, asked.key, asked.authority
    if not (certificate or key or authority):
        return None
    if not (certificate and key and authority):
        raise ValueError("--tls-cert, --tls-key and --tls-ca go together: each end proves who it is")
    for path in (certificate, key, authority):
        if not Path(path).is_absolute():
            raise ValueError(f"{path!r}: write it as an absolute path, as Envoy sees it")
    if Path(certificate).exists():  # Envoy may run on another machine, or see another path
        _check(Files(Path(certificate), Path(key), Path(authority)), asked.node)
    return Tls(certificate, key, authority, asked.server_name or host, str(directory))


def _check(files: Files, node: str) -> None:
    """Raise `NoCertificates` for a certificate with which the reconciler would refuse this Envoy."""
    material = files.read()
    found = check(material, str(files.certificate), Role.PROXY, Role.ENVOY)
    if found.role is Role.ENVOY and found.node != node:
        raise NoCertificates(
            f"{files.certificate}: the certificate is for node id {found.node}, and this Envoy's is {node}; "
            f"use --node {found.node}, or a certificate with the URI SAN {envoy(node).uri}"
        )


def _target(text: str) -> tuple[str, int]:
    if text.startswith("unix:"):
        return text, 0
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"reconciler {text!r}: write it as host:port, for instance 127.0.0.1:18000")
    return host, int(port)
