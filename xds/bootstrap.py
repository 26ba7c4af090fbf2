"""The bootstrap with which an Envoy joins a reconciler: all else comes over ADS.

Pure. `bootstrap` returns plain data; `as_yaml` and `as_json` print it, `files` has all that Envoy needs beside one
another. Used by `zenvoy bootstrap` and `zenvoy up`.
https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/bootstrap/v3/bootstrap.proto
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal

import yaml

from xds import bootstrap_limits, bootstrap_stats, bootstrap_tls
from xds.bootstrap_tls import Tls as Tls

ADS_CLUSTER = "zenvoy_ads"
"""The one cluster in the bootstrap; it is no service."""
STATS = (
    r"^cluster\..*\.upstream_(rq|cx)_(total|active)$",
    r"^cluster\..*\.upstream_cx_(rx|tx)_bytes_total$",
    r"^server\.(live|state|uptime|total_connections)$",
    r"^cluster_manager\.(active|warming)_clusters$",
    r"^listener_manager\.(total_listeners_(active|warming|draining)|listener_create_failure|lds\.update_rejected)$",
    r"^control_plane\.connected_state$",
    # Clients by listener, without each worker's share: what an Envoy that is to end waits for.
    r"^listener\.[^w]*_\d+\.downstream_cx_active$",
)
"""The statistics that Envoy keeps. With all of them, 10,000 services would cost it twice the memory and start-up."""
FLUSH_INTERVAL = "0.5s"
"""Together with the whole seconds that `server.uptime` has, within what the reconciler tolerates."""
OWNER_ONLY = 0o600
NODE_TAG = "zenvoy_node"
"""The label with the node id on all that Prometheus scrapes from Envoy."""
_INTERNAL = "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
OPEN_FILES = "open-files"
"""The file with the limit that the bootstrap was made for, for the program that starts Envoy to set."""
USUAL_OPEN_FILES = 1024
"""The soft limit of most systems."""


@dataclass(frozen=True, slots=True)
class Join:
    """What an Envoy must be told to join."""

    node: str
    """Its name; every Envoy needs its own, a second stream of the same name ends the first."""
    reconciler: str
    """Host or IP address of the reconciler, or `unix:` and the path of its socket."""
    port: int = 18000
    """Port of the reconciler's gRPC server; unused with a socket."""
    admin: str = "127.0.0.1:9901"
    """`ip:port`, `[ipv6]:port`, or the path of a unix socket."""
    cluster: str = "zenvoy"
    mode: Literal["delta", "sotw"] = "delta"
    stats: str | None = None
    """`ip:port` at which others find its statistics and whether it is ready; its admin port is for itself."""
    tls: Tls | None = None
    """How both ends prove who they are; without it neither does."""
    open_files: int = USUAL_OPEN_FILES
    """How many files this Envoy may have open (RLIMIT_NOFILE); its limits on connections follow from it."""


def bootstrap(join: Join) -> dict[str, Any]:
    """Return the bootstrap as plain data. Raises `ValueError` for a wrong address or too few open files."""
    ads: dict[str, Any] = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    admin = _admin(join.admin)
    return {
        "node": _node(join),
        # Whoever uses up all connections must not keep the reconciler from its statistics.
        "admin": {"address": admin, "ignore_global_conn_limit": True},
        "dynamic_resources": {"ads_config": _ads(join.mode), "cds_config": ads, "lds_config": dict(ads)},
        "static_resources": _static(join, admin),
        "stats_config": {
            # Without it nobody can tell, from a scrape's text, which Envoy it is of.
            "stats_tags": [{"tag_name": NODE_TAG, "fixed_value": join.node}],
            "stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": regex}} for regex in STATS]}},
        },
        # `server.uptime` is as old as the latest flush; by default 5 s, and then it seems to have restarted.
        "stats_flush_interval": FLUSH_INTERVAL,
        # For the listener that answers ignored requests to services that are not running (`resources/ignore_rules.py`).
        "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": _INTERNAL}}],
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": bootstrap_limits.overload_manager(join.open_files),
        "layered_runtime": bootstrap_limits.layered_runtime(join.open_files),
    }


def files(join: Join) -> dict[str, str]:
    """The bootstrap as `envoy.yaml` and whatever it points to, by file name, as YAML."""
    pointed_to = bootstrap_tls.secrets(join.tls) if join.tls else {}
    secrets = {name: _yaml(content) for name, content in pointed_to.items()}
    return {"envoy.yaml": as_yaml(join), OPEN_FILES: f"{join.open_files}\n"} | secrets


def as_yaml(join: Join) -> str:
    """Return the bootstrap as YAML."""
    return _yaml(bootstrap(join))


def as_json(join: Join) -> str:
    """Return the bootstrap as JSON."""
    return json.dumps(bootstrap(join), indent=2)


def _yaml(content: Any) -> str:
    return str(yaml.dump(content, Dumper=_Plain, sort_keys=False))


class _Plain(yaml.SafeDumper):
    """Without anchors, which people do not expect."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _node(join: Join) -> dict[str, Any]:
    node: dict[str, Any] = {"id": join.node, "cluster": join.cluster}
    return node | ({"metadata": bootstrap_stats.metadata(join.stats)} if join.stats else {})


def _static(join: Join, admin: dict[str, Any]) -> dict[str, Any]:
    reconciler = _cluster(join)
    if not join.stats:
        return {"clusters": [reconciler]}
    clusters = [reconciler, bootstrap_stats.cluster(admin)]
    return {"listeners": [bootstrap_stats.listener(join.stats)], "clusters": clusters}


def _admin(where: str) -> dict[str, Any]:
    if "/" in where or where.startswith("@"):
        # Whoever reaches the admin port can stop Envoy: only its own user, whatever the umask. `@` has no mode.
        return {"pipe": {"path": where} if where.startswith("@") else {"path": where, "mode": OWNER_ONLY}}
    try:
        return _socket(*bootstrap_stats.address_of(where))
    except ValueError:
        raise ValueError(f"admin address {where!r}: neither ip:port nor a path") from None


def _ads(mode: str) -> dict[str, Any]:
    # Envoy's own backing off would leave it alone for up to 30 s after the reconciler has restarted.
    again = {"retry_back_off": {"base_interval": "0.05s", "max_interval": "1s"}}
    return {
        "api_type": "DELTA_GRPC" if mode == "delta" else "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": ADS_CLUSTER, "retry_policy": again}}],
    }


def _cluster(join: Join) -> dict[str, Any]:
    host, port = join.reconciler, join.port
    host = host.removeprefix("[").removesuffix("]")
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
        },
    }
    path = host.removeprefix("unix:") if host.startswith("unix:") else None
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}} if path else _socket(host, port)}}
    # By default an IPv6 address, if there is one, hides the IPv4 ones; the reconciler may listen at these alone.
    named = {} if path or _is_ip(host) else {"dns_lookup_family": "ALL"}
    secured = {"transport_socket": bootstrap_tls.transport_socket(join.tls)} if join.tls else {}
    return {
        "name": ADS_CLUSTER,
        "type": "STATIC" if path or _is_ip(host) else "STRICT_DNS",
        **named,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADS_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        **secured,
    }


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
