"""Mutual TLS to the reconciler, with certificates in files that may be replaced while Envoy runs.

Pure. Envoy reads files anew only for secrets that come by SDS, and looks only when something is moved within the
watched directory, which is how Kubernetes replaces what it mounts. So each secret is a small file of its own, to which
the bootstrap points: https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
CERTIFICATE, AUTHORITY = "zenvoy_certificate", "zenvoy_authority"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of PEM, by their paths as Envoy sees them."""

    certificate: str
    key: str
    authority: str
    """CAs that the reconciler's certificate must be from."""
    server_name: str
    """DNS name that the reconciler's certificate must be for."""
    secrets: str
    """The directory in which Envoy finds the files of `secrets()`."""


def secrets(tls: Tls) -> dict[str, dict[str, Any]]:
    """What the files in the directory must say, by file name; YAML and JSON alike."""
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
    """What the reconciler's cluster needs."""
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
