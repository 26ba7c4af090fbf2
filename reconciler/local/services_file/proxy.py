"""The `proxy` block: the settings of Envoy's listeners. The chart's values have the same words."""

from __future__ import annotations

import re
from collections.abc import Collection

import yaml

from reconciler.core.text import closest_match, join_words
from reconciler.core.validation import MAX_PORT, MAX_TRUSTED_HOPS
from reconciler.local.services_file.model import FileProblem, Problems
from reconciler.local.services_file.values import Value, given
from reconciler.ports.router import (
    MAX_HEADERS,
    MAX_HEADERS_KIB,
    MAX_KEEPALIVE_SECONDS,
    MIN_KEEPALIVE_SECONDS,
    ProxySettings,
)

EXAMPLE = "{http: {trustedHops: 1}}"
HTTP_KEYS = ("trustedHops", "maxHeadersKiB", "maxHeaders", "healthPath", "defaultService", "proxyProtocol")


def read_proxy(
    value: Value, services: Collection[str] | None = None, own_ports: Collection[int] | None = None
) -> ProxySettings:
    """Return the valid settings; problems of the others are recorded.

    `services` are the HTTP services, and `own_ports` those of services with a listener of their own, if known.
    """
    fields = value.fields(("http", "tls", "tcp", "keepalive"), EXAMPLE)
    default = ProxySettings()
    http = fields["http"].fields(HTTP_KEYS, "{trustedHops: 1}") if "http" in fields else {}
    tls = fields["tls"].fields(("proxyProtocol",), "{proxyProtocol: true}") if "tls" in fields else {}
    tcp = fields["tcp"].fields(("proxyProtocol",), "{proxyProtocol: [5432]}") if "tcp" in fields else {}
    return ProxySettings(
        trusted_hops=given(http, "trustedHops", lambda hops: hops.whole(0, MAX_TRUSTED_HOPS), default.trusted_hops),
        max_headers_kib=given(
            http, "maxHeadersKiB", lambda size: size.whole(1, MAX_HEADERS_KIB), default.max_headers_kib
        ),
        max_headers=given(http, "maxHeaders", lambda number: number.whole(1, MAX_HEADERS), default.max_headers),
        health_path=given(http, "healthPath", _path, default.health_path),
        default_service=given(http, "defaultService", lambda name: _service(name, services), default.default_service),
        http_proxy_protocol=given(http, "proxyProtocol", Value.yes_no, default.http_proxy_protocol),
        tls_proxy_protocol=given(tls, "proxyProtocol", Value.yes_no, default.tls_proxy_protocol),
        tcp_proxy_protocol=given(
            tcp, "proxyProtocol", lambda ports: _ports(ports, own_ports), default.tcp_proxy_protocol
        ),
        keepalive_seconds=given(fields, "keepalive", _keepalive, default.keepalive_seconds),
    )


def proxy_of(text: str, name: str) -> ProxySettings | list[FileProblem]:
    """Read settings from YAML or JSON, or return all problems; `name` is the name of the text in them."""
    problems = Problems(name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if node is None:
        problems.add(f"neither YAML nor JSON; use for example {EXAMPLE}")
        return problems.found()
    settings = read_proxy(Value(node, "proxy", problems))
    return problems.found() or settings


def _path(value: Value) -> str | None:
    path = value.text("/healthz")
    if path is None or re.fullmatch(r"(/[!-~]*)?", path):
        return path
    value.wrong(f"{path!r} is not a path; use for example /healthz")
    return None


def _service(value: Value, services: Collection[str] | None) -> str | None:
    name = value.text("web")
    if not name or services is None or name in services:
        return name
    guess = closest_match(name, services)
    right = f"did you mean {guess}?" if guess else "use the name of an http service of this file"
    value.wrong(f"{name!r} is not an http service of this file; {right}")
    return None


def _ports(value: Value, known: Collection[int] | None) -> frozenset[int]:
    items = value.items("[5432]")
    ports = [item.whole(1, MAX_PORT) for item in items]
    for item, port in zip(items, ports, strict=True):
        if port is not None and known is not None and port not in known:
            right = f"use {join_words(map(str, sorted(known)))}" if known else "set listen of the service"
            item.wrong(f"no service of this file listens on port {port}; {right}")
    return frozenset(port for port in ports if port is not None)


def _keepalive(value: Value) -> int | None:
    """Return whole seconds, which is what the kernel counts."""
    seconds = value.seconds(MIN_KEEPALIVE_SECONDS)
    if seconds is None:
        return None
    if seconds == int(seconds) and seconds <= MAX_KEEPALIVE_SECONDS:
        return int(seconds)
    value.wrong(f"{value.shown} is not valid; use whole seconds, at most {MAX_KEEPALIVE_SECONDS}s")
    return None
