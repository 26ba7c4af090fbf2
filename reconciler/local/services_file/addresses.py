"""Addresses and names in a services file."""

from __future__ import annotations

import re

from reconciler.core.address import Address
from reconciler.local.services_file.values import Value

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(_LABEL)
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def address(value: Value) -> Address | None:
    """Return an `ip:port`, with IPv6 in brackets."""
    text = value.as_written('"127.0.0.1:10000"')
    if text is None:
        return None
    try:
        return Address.parse(text)
    except ValueError as error:
        value.wrong(str(error))
    return None


def service_name(value: Value) -> str:
    """Return a DNS label; empty if it is not valid."""
    text = value.text("web")
    if text is None or _NAME.fullmatch(text):
        return text or ""
    value.wrong(f"{text!r} is not a DNS label; use at most 63 of a-z, 0-9 and -{_suggestion(text, _NAME)}")
    return ""


def host_name(value: Value) -> str:
    """Return a DNS name without a port; empty if it is not valid."""
    text = value.text("shop.example.com")
    if text is None or (_HOST.fullmatch(text) and len(text) <= 253):
        return text or ""
    without_port = re.sub(r":\d+$", "", text)
    value.wrong(f"{text!r} is not a host name; use for example {_close_to(without_port, _HOST) or 'shop.example.com'}")
    return ""


def _suggestion(text: str, pattern: re.Pattern[str]) -> str:
    close = _close_to(text, pattern)
    return f", for example {close}" if close else ""


def _close_to(text: str, pattern: re.Pattern[str]) -> str:
    """Return a valid name that is close to the text; empty if there is none."""
    close = re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")
    return close if pattern.fullmatch(close) else ""
