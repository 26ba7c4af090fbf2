"""The texts of the answers that Envoy itself gives: who refused a request, and why."""

from __future__ import annotations

from typing import Any

from xds import ir

_REASON = "%RESPONSE_CODE_DETAILS%"
"""Envoy's own name of the reason, such as `http1.invalid_characters`."""
_PATH_IS_RELATIVE = {
    "header_filter": {"header": {"name": ":path", "string_match": {"prefix": "/"}, "invert_match": True}}
}
_NO_ROUTE = ["NR"]
_INVALID_ANSWER = ["UPE"]
_NO_ANSWER = ["UH", "UF", "UC", "UR", "LR", "UO", "URX", "UT"]
"""Response flags: no endpoint, and a connection to it that failed, ended, or was reset."""


def local_replies(options: ir.ListenerOptions) -> dict[str, Any]:
    """Return the texts of an HTTP listener. The answer for an unknown host has the status 404 and its own text."""
    limits = f"{options.max_headers_kib} KiB (maxHeadersKiB) or {options.max_headers} headers (maxHeaders)"
    no_path = {"and_filter": {"filters": [_status(404), _PATH_IS_RELATIVE]}}
    texts = [
        (_status(431), f"the headers of the request exceed {limits}"),
        (_any(_status(400), _status(501)), f"Envoy does not accept the request: {_REASON}"),
        (_any(_flags(_NO_ROUTE), no_path), f"the request does not have the path of a service: {_REASON}"),
        (_flags(_INVALID_ANSWER), f"the answer of the service is invalid, or has another protocol: {_REASON}"),
        (_flags(_NO_ANSWER), f"the service did not answer: {_REASON}"),
    ]
    return {"mappers": [_mapper(condition, f"zenvoy: {text}\n") for condition, text in texts]}


def _mapper(condition: dict[str, Any], text: str) -> dict[str, Any]:
    return {"filter": condition, "body_format_override": {"text_format_source": {"inline_string": text}}}


def _status(code: int) -> dict[str, Any]:
    value = {"default_value": code, "runtime_key": f"zenvoy.status_{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _flags(flags: list[str]) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": flags}}


def _any(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"or_filter": {"filters": list(conditions)}}
