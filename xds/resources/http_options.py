"""Options of HTTP that listeners and clusters have in common, so that a message passes through Envoy unchanged."""

from __future__ import annotations

import re
from typing import Any

from xds.resources.proto import PreserveCase, extension

PASSED_UPGRADES = ("websocket", "tcp", "spdy/3.1")
"""The upgrades that are passed to services, in lower case: `tcp` is that of container engines, SPDY that of Kubernetes.
Envoy can only pass upgrades that it is configured for. Their first letters differ."""


def http1_options() -> dict[str, Any]:
    """Return the HTTP/1.1 options of both sides. Names of headers keep their case, and trailers are passed."""
    formatter = PreserveCase(forward_reason_phrase=True, formatter_type_on_envoy_headers="PROPER_CASE")
    preserve_case = extension("envoy.http.stateful_header_formatters.preserve_case", formatter)
    return {"header_key_format": {"stateful_formatter": preserve_case}, "enable_trailers": True}


def http2_options() -> dict[str, Any]:
    """Return the HTTP/2 options of both sides. An invalid message ends its own stream, not all of the connection."""
    return {"allow_connect": True, "override_stream_error_on_invalid_http_message": {"value": True}}


def ignored_upgrades() -> list[dict[str, Any]]:
    """Return the matchers of upgrades that Envoy removes from a request, which then continues without it.

    A server may ignore an upgrade, and most do; Envoy would refuse the request with 403.
    """
    firsts = "".join(word[0] for word in PASSED_UPGRADES)
    patterns = [f"[^{firsts}].*", *(_starts_like(word) for word in PASSED_UPGRADES)]
    return [{"safe_regex": {"regex": f"(?i){pattern}"}} for pattern in patterns]


def _starts_like(word: str) -> str:
    """Return a regular expression for every text except this word that has its first letter.

    Envoy's regular expressions have no negation, and a limit of their size.
    """
    pattern = ".+"
    for character in reversed(word[1:]):
        pattern = f"(?:[^{character}].*|{re.escape(character)}{pattern})?"
    return word[0] + pattern
