"""Mutual TLS to the reconciler, with certificates in files that may be replaced while Envoy runs.

Pure. Envoy reads files again only for secrets from SDS, and only when a file is moved within the watched directory, as
Kubernetes does when it updates a mounted Secret. So each secret is a file of its own, to which the bootstrap refers: https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
CERTIFICATE, AUTHORITY = "zenvoy_certificate", "zenvoy_authority"


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files, as seen by Envoy."""

    certificate: str
    key: str
    authority: str
    """The CAs that may issue the reconciler's certificate."""
    server_name: str
    """The DNS name in the reconciler's certificate."""
    secrets: str
    """The directory that contains the files of `secrets()`."""


def secrets(tls: Tls) -> dict[str, dict[str, Any]]:
    """Return the content of the files in the directory, by file name."""
    certificate = {
        "certificate_chain": {"filename": tls.certificate},
        "private_key": {"filename": tls.key},
        "watched_directory": {"path": str(PurePath(tls.certificate).parent)},
    }
    authority = {
        "trusted_ca": {"filename": tls.authority},
        "watched_directory": {"path": str(PurePath(tls.authority).parent)},
    }
    return {
        _file(CERTIFICATE): _secret(CERTIFICATE, tls_certificate=certificate),
        _file(AUTHORITY): _secret(AUTHORITY, validation_context=authority),
    }


def transport_socket(tls: Tls) -> dict[str, Any]:
    """Return the transport socket of the reconciler's cluster."""
    only_it = {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": tls.server_name}}]}
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [_config(tls, CERTIFICATE)],
        "combined_validation_context": {
            "default_validation_context": only_it,
            "validation_context_sds_secret_config": _config(tls, AUTHORITY),
        },
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}.UpstreamTlsContext",
            "common_tls_context": context,
            "sni": tls.server_name,
        },
    }


def _file(name: str) -> str:
    return f"{name}.yaml"


def _secret(name: str, **content: Any) -> dict[str, Any]:
    return {"resources": [{"@type": f"{_TYPE}.Secret", "name": name, **content}]}


def _config(tls: Tls, name: str) -> dict[str, Any]:
    path = str(PurePath(tls.secrets) / _file(name))
    return {"name": name, "sds_config": {"path_config_source": {"path": path}, "resource_api_version": "V3"}}
