"""Writes `shared.py` from `messages.py`: what all services of a kind have in common, encoded ahead of time.

`python -m xds.share` rewrites the file; a test holds it equal. Importing envoy_data_plane and encoding one message of
each kind costs 2 s of CPU and 60 MB, which neither the reconciler's start nor `zenvoy --help` should have to pay.
"""

from __future__ import annotations

from pathlib import Path

from xds import ir, messages, names, routes
from xds.api import Any, hcm_v3, route_v3
from xds.wire import text

TARGET = Path(__file__).with_name("shared.py")
_HEAD = '''"""What all services of a kind have in common in Envoy's configuration, encoded. Written by `share.py`."""

# fmt: off
'''
_NOWHERE = ir.Address("", 0)


def shared() -> dict[str, bytes]:
    """Return the constants of `shared.py`."""
    host = routes.virtual_host("", ())
    route = host.routes.pop()
    assert route.route is not None
    action, route.route = bytes(route.route), None
    proxy = messages.tcp_proxy("")
    config, proxy.typed_config = proxy.typed_config, None
    assert config is not None
    http, tls = messages.http_listener(_NOWHERE), messages.tls_listener(_NOWHERE, [])
    http.address = tls.address = None
    routes_tried = messages.trial_of_routes(routes.route_configuration([]))
    [[tried]] = [chain.filters for chain in routes_tried.filter_chains]
    manager, tried.typed_config = tried.typed_config, None
    assert manager is not None
    routes_tried.filter_chains = []
    return {
        "ANSWERS_LISTENER": bytes(messages.answers_listener()),
        "ANSWERS_ROUTES": bytes(routes.route_configuration([], names.ANSWERS)),
        **{f"CLUSTER_{protocol.name}": bytes(messages.cluster("", protocol)) for protocol in ir.Protocol},
        "HELD": _held(),
        "HTTP_LISTENER": bytes(http),
        "ROUTES": bytes(routes.route_configuration([])),
        "ROUTE_ACTION": action,
        "ROUTE_MATCH": bytes(route),
        "TCP_PROXY": config.value,
        "TCP_PROXY_FILTER": bytes(proxy),
        "TCP_PROXY_TYPE": text(1, config.type_url),
        "TLS_LISTENER": bytes(tls),
        "TRIAL_CHAINS": _trial_of_chains(),
        "TRIAL_FILTER": bytes(tried),
        "TRIAL_LISTENER": bytes(routes_tried),
        "TRIAL_MANAGER": _without_routes(manager),
        "TRIAL_ROUTES": _trial_of_routes(),
        "TRIAL_TYPE": text(1, manager.type_url),
        "UNKNOWN_HOST": bytes(routes.unknown_host()),
        "VIRTUAL_HOST": bytes(host),
    }


def _trial_of_chains() -> bytes:
    """Return what makes the TLS listener one in which its chains are tried."""
    listener = messages.trial_of_chains([])
    listener.listener_filters = []
    return bytes(listener)


def _trial_of_routes() -> bytes:
    return bytes(route_v3.RouteConfiguration(validate_clusters=False))


def _without_routes(packed: Any) -> bytes:
    manager = hcm_v3.HttpConnectionManager.parse(packed.value)
    manager.route_config = None
    return bytes(manager)


def _held() -> bytes:
    """What an endpoint has that is a hold address."""
    endpoint = messages.load_assignment("", (_NOWHERE,), held=True).endpoints[0].lb_endpoints[0]
    endpoint.endpoint = None
    return bytes(endpoint)


def source() -> str:
    """Return the text of `shared.py`."""
    return _HEAD + "\n".join(f"{name} = {_literal(value)}" for name, value in shared().items()) + "\n"


def _literal(value: bytes) -> str:
    chunks = (value[at : at + 24] for at in range(0, len(value), 24))
    lines = [f'b"{"".join(_escaped(byte) for byte in chunk)}"' for chunk in chunks]
    return lines[0] if len(lines) == 1 else "(\n    " + "\n    ".join(lines) + "\n)"


def _escaped(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}"


if __name__ == "__main__":
    TARGET.write_text(source())
