"""Envoy bootstraps from the options of `zenvoy bootstrap`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reconciler.core.access import Role, envoy
from reconciler.server.credentials.material import Files, NoCertificates, check
from xds.bootstrap.document import USUAL_OPEN_FILES, Join, Tls, as_json, as_yaml, files


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """The options of `zenvoy bootstrap`, not validated."""

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


def text(options: BootstrapOptions, as_json_text: bool) -> str:
    """Return the bootstrap as YAML or JSON. Raises `ValueError`."""
    if options.certificate or options.key or options.authority:
        raise ValueError(
            "certificates need --directory: Envoy reloads certificates only through files that point to them"
        )
    join = _join(options, None)
    return as_json(join) if as_json_text else as_yaml(join)


def write(options: BootstrapOptions, directory: Path) -> list[Path]:
    """Write `envoy.yaml`, and the files that it refers to, into a directory. Raises `ValueError` and `OSError`."""
    directory = directory.absolute()
    written = []
    for name, content in files(_join(options, directory)).items():
        path = directory / name
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def _join(options: BootstrapOptions, directory: Path | None) -> Join:
    host, port = _target(options.reconciler)
    return Join(
        options.node,
        host,
        port,
        options.admin,
        mode=options.mode,
        stats=options.stats,
        tls=_tls(options, host, directory),
        open_files=options.open_files,
    )


def _tls(options: BootstrapOptions, host: str, directory: Path | None) -> Tls | None:
    certificate, key, authority = options.certificate, options.key, options.authority
    if not (certificate or key or authority):
        return None
    if not (certificate and key and authority):
        raise ValueError("--tls-cert, --tls-key and --tls-ca go together: both ends authenticate")
    for path in (certificate, key, authority):
        if not Path(path).is_absolute():
            raise ValueError(f"{path}: not an absolute path; write it as an absolute path, as Envoy sees it")
    if Path(certificate).exists():  # Envoy may run on another machine, or see another path
        mounted = Files(Path(certificate), Path(key), Path(authority))
        found = check(mounted.read(), str(mounted.certificate), Role.PROXY, Role.ENVOY)
        if found.role is Role.ENVOY and found.node != options.node:
            raise NoCertificates(
                f"{mounted.certificate}: the certificate is for node id {found.node}, not {options.node}; "
                f"use --node {found.node}, or a certificate with the URI SAN {envoy(options.node).uri}"
            )
    return Tls(certificate, key, authority, options.server_name or host, str(directory))


def _target(text: str) -> tuple[str, int]:
    if text.startswith("unix:"):
        return text, 0
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"--reconciler: {text!r} is not host:port; write it as host:port, for example 127.0.0.1:18000")
    return host, int(port)
