"""The bootstrap with which an Envoy connects to a reconciler. Everything else is received over ADS.

Pure. `bootstrap` returns plain data, `as_yaml` and `as_json` return it as text, `files` returns all files that Envoy
needs. Used by `zenvoy bootstrap` and `zenvoy up`.
https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/bootstrap/v3/bootstrap.proto
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import PurePath
from typing import Any, Literal

import yaml

from xds.bootstrap import stats_listener
from xds.names import HTTP_LISTENER, TLS_LISTENER

ADS_CLUSTER = "zenvoy_ads"
"""The reconciler's cluster, which is not a service."""
STATS = (
    r"^cluster\..*\.upstream_(rq|cx)_(total|active)$",
    r"^cluster\..*\.upstream_cx_(rx|tx)_bytes_total$",
    r"^server\.(live|state|uptime|total_connections)$",
    r"^cluster_manager\.(active|warming)_clusters$",
    r"^listener_manager\.(total_listeners_(active|warming|draining)|listener_create_failure|lds\.update_rejected)$",
    r"^control_plane\.connected_state$",
    # Clients by listener, not by worker: an Envoy that is shutting down waits until there are none.
    r"^listener\.[^w]*_\d+\.downstream_cx_active$",
)
"""The statistics that Envoy keeps. Keeping all would double its memory and startup time with 10,000 services."""
FLUSH_INTERVAL = "0.5s"
"""Together with the whole seconds of `server.uptime`, within the reconciler's tolerance."""
OWNER_ONLY = 0o600
NODE_TAG = "zenvoy_node"
"""The label with the node id on all metrics that Prometheus scrapes from Envoy."""
_FEATURES = {"envoy.reloadable_features.http_pause_generic_upgrade_request_body": False}
"""By default Envoy sends the body of an upgrade request only after the answer. A container engine answers after it."""
_INTERNAL = "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
OPEN_FILES = "open-files"
"""The file with the limit of open files that the bootstrap assumes; the program that starts Envoy sets it."""
LEAST_OPEN_FILES = 256
"""The minimum with which Envoy starts reliably."""
LEAST_RESERVE = 128
MAX_CONNECTIONS = 1_000_000
MAX_SCRAPES = 512
"""Connections to the statistics listener: Prometheus, reconcilers and probes need a few."""
_MONITOR = (
    "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
)
USUAL_OPEN_FILES = 1024
"""The default soft limit of most systems."""
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_CERTIFICATE, _AUTHORITY = "zenvoy_certificate", "zenvoy_authority"


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


@dataclass(frozen=True, slots=True)
class Join:
    """The settings of an Envoy's bootstrap."""

    node: str
    """Its name, which must be unique: a second stream with the same name ends the first."""
    reconciler: str
    """Host or IP address of the reconciler, or `unix:` and the path of its socket."""
    port: int = 18000
    """Port of the reconciler's gRPC server; unused with a socket."""
    admin: str = "127.0.0.1:9901"
    """`ip:port`, `[ipv6]:port`, or the path of a unix socket."""
    mode: Literal["delta", "sotw"] = "delta"
    stats: str | None = None
    """`ip:port` of the listener for statistics and readiness; the admin port is only for the Envoy's own user."""
    tls: Tls | None = None
    """Certificates for mutual TLS; None for plaintext."""
    open_files: int = USUAL_OPEN_FILES
    """Maximum number of open files of this Envoy (RLIMIT_NOFILE), from which its connection limits follow."""


def bootstrap(join: Join) -> dict[str, Any]:
    """Return the bootstrap as plain data. Raises `ValueError` for a wrong address or too few open files."""
    ads: dict[str, Any] = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    admin = _admin(join.admin)
    metadata = {"metadata": stats_listener.metadata(join.stats)} if join.stats else {}
    return {
        "node": {"id": join.node, "cluster": "zenvoy", **metadata},
        # Clients that use up all connections must not block the reconciler's access to the statistics.
        "admin": {"address": admin, "ignore_global_conn_limit": True},
        "dynamic_resources": {"ads_config": _ads(join.mode), "cds_config": ads, "lds_config": dict(ads)},
        "static_resources": _static(join, admin),
        "stats_config": {
            # A scrape's text does not name its Envoy otherwise.
            "stats_tags": [{"tag_name": NODE_TAG, "fixed_value": join.node}],
            "stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": regex}} for regex in STATS]}},
        },
        # `server.uptime` is as old as the latest flush. With the default of 5 s, Envoy seems to have restarted.
        "stats_flush_interval": FLUSH_INTERVAL,
        # For the listener that answers ignored requests to services that are not running (`resources/routes.py`).
        "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": _INTERNAL}}],
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": _overload_manager(join.open_files),
        "layered_runtime": {
            "layers": [
                {"name": "zenvoy", "static_layer": {**_listener_limits(join.open_files), **_FEATURES}},
                {"name": "admin", "admin_layer": {}},
            ]
        },
    }


def most_connections(open_files: int) -> int:
    """Return the number of clients that an Envoy with this limit of open files accepts. Raises `ValueError`.

    An Envoy without a free descriptor aborts, and closes all connections. So it refuses connections before that: a
    quarter of the descriptors is reserved for listeners, admin, discovery and closing connections, and each client
    needs two, one of them for the connection to its service or holder.
    """
    if open_files < LEAST_OPEN_FILES:
        raise ValueError(f"open files {open_files}: Envoy requires at least {LEAST_OPEN_FILES}; raise `ulimit -n`")
    return min(MAX_CONNECTIONS, (open_files - max(LEAST_RESERVE, open_files // 4)) // 2)


def _overload_manager(open_files: int) -> dict[str, Any]:
    """Return the limit on the clients of all listeners; further connections are closed at once.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_manager/overload_manager
    """
    monitor = {"@type": _MONITOR, "max_active_downstream_connections": most_connections(open_files)}
    name = "envoy.resource_monitors.global_downstream_max_connections"
    return {"resource_monitors": [{"name": name, "typed_config": monitor}]}


def _listener_limits(open_files: int) -> dict[str, Any]:
    """Return the limits of single listeners as runtime keys: clients of a shared one leave room for others."""
    shared, scrapes = most_connections(open_files) * 3 // 4, min(MAX_SCRAPES, open_files // 16)
    limits = {HTTP_LISTENER: shared, TLS_LISTENER: shared, stats_listener.LISTENER: scrapes}
    listeners = {name: {"connection_limit": limit} for name, limit in limits.items()}
    return {"envoy": {"resource_limits": {"listener": listeners}}}


def files(join: Join) -> dict[str, str]:
    """Return the bootstrap as `envoy.yaml`, and the files that it refers to, by file name, as YAML."""
    pointed_to = {name: _yaml(content) for name, content in secrets(join.tls).items()} if join.tls else {}
    return {"envoy.yaml": as_yaml(join), OPEN_FILES: f"{join.open_files}\n", **pointed_to}


def secrets(tls: Tls) -> dict[str, dict[str, Any]]:
    """Return the content of the files in the directory of secrets, by file name.

    Envoy reads files again only for secrets from SDS, and only when a file is moved within the watched directory, as
    Kubernetes does when it updates a mounted Secret. So each secret is a file of its own, to which the bootstrap
    refers: https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret
    """
    certificate = {
        "certificate_chain": {"filename": tls.certificate},
        "private_key": {"filename": tls.key},
        "watched_directory": {"path": str(PurePath(tls.certificate).parent)},
    }
    authority = {
        "trusted_ca": {"filename": tls.authority},
        "watched_directory": {"path": str(PurePath(tls.authority).parent)},
    }
    contents = {_CERTIFICATE: {"tls_certificate": certificate}, _AUTHORITY: {"validation_context": authority}}
    return {
        f"{name}.yaml": {"resources": [{"@type": f"{_TLS}.Secret", "name": name, **content}]}
        for name, content in contents.items()
    }


def as_yaml(join: Join) -> str:
    """Return the bootstrap as YAML."""
    return _yaml(bootstrap(join))


def as_json(join: Join) -> str:
    """Return the bootstrap as JSON."""
    return json.dumps(bootstrap(join), indent=2)


def _yaml(content: Any) -> str:
    return str(yaml.dump(content, Dumper=_Plain, sort_keys=False))


class _Plain(yaml.SafeDumper):
    """A dumper without anchors, which make YAML hard to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _static(join: Join, admin: dict[str, Any]) -> dict[str, Any]:
    reconciler = _cluster(join)
    if not join.stats:
        return {"clusters": [reconciler]}
    clusters = [reconciler, stats_listener.cluster(admin)]
    return {"listeners": [stats_listener.listener(join.stats)], "clusters": clusters}


def _admin(where: str) -> dict[str, Any]:
    if "/" in where or where.startswith("@"):
        # Clients of the admin port can stop Envoy: allow only its own user, regardless of the umask. `@` has no mode.
        return {"pipe": {"path": where} if where.startswith("@") else {"path": where, "mode": OWNER_ONLY}}
    try:
        return _socket(*stats_listener.address_of(where))
    except ValueError:
        raise ValueError(f"admin address {where!r} is not valid; use ip:port or a path") from None


def _ads(mode: str) -> dict[str, Any]:
    # With its default backoff, Envoy may reconnect only 30 s after the reconciler has restarted.
    again = {"retry_back_off": {"base_interval": "0.05s", "max_interval": "1s"}}
    return {
        "api_type": "DELTA_GRPC" if mode == "delta" else "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": ADS_CLUSTER, "retry_policy": again}}],
    }


def _cluster(join: Join) -> dict[str, Any]:
    host = join.reconciler.removeprefix("[").removesuffix("]")
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
        },
    }
    path = host.removeprefix("unix:") if host.startswith("unix:") else None
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}} if path else _socket(host, join.port)}}
    # By default an IPv6 address hides the IPv4 ones, and the reconciler may listen only on those.
    by_name = {"type": "STRICT_DNS", "dns_lookup_family": "ALL"}
    secured = {"transport_socket": _transport_socket(join.tls)} if join.tls else {}
    return {
        "name": ADS_CLUSTER,
        **({"type": "STATIC"} if path or _is_ip(host) else by_name),
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADS_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        **secured,
    }


def _transport_socket(tls: Tls) -> dict[str, Any]:
    """Return the transport socket of the reconciler's cluster: mutual TLS, with files that may be replaced."""
    only_it = {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": tls.server_name}}]}
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [_secret_config(tls, _CERTIFICATE)],
        "combined_validation_context": {
            "default_validation_context": only_it,
            "validation_context_sds_secret_config": _secret_config(tls, _AUTHORITY),
        },
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TLS}.UpstreamTlsContext", "common_tls_context": context, "sni": tls.server_name},
    }


def _secret_config(tls: Tls, name: str) -> dict[str, Any]:
    path = str(PurePath(tls.secrets) / f"{name}.yaml")
    return {"name": name, "sds_config": {"path_config_source": {"path": path}, "resource_api_version": "V3"}}


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
