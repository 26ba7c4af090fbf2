"""Addresses and names as they may stand in a services file."""

from __future__ import annotations

import re

from reconciler.core.address import Address
from reconciler.local.services_file.values import Value

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(_LABEL)
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def address(value: Value) -> Address | None:
    """`ip:port`, IPv6 in brackets."""
    text = value.as_written('"127.0.0.1:10000"')
    if text is None:
        return None
    try:
        return Address.parse(text)
    except ValueError as error:
        value.wrong(str(error))
    return None


def service_name(value: Value) -> str:
    """A DNS label; empty when it is none."""
    text = value.text("web")
    if text is None or _NAME.fullmatch(text):
        return text or ""
    value.wrong(f"{text!r} is not a DNS label: at most 63 of a-z, 0-9 and -{_instead(text, _NAME)}")
    return ""


def host_name(value: Value) -> str:
    """A DNS name without a port; empty when it is none."""
    text = value.text("shop.example.com")
    if text is None or (_HOST.fullmatch(text) and len(text) <= 253):
        return text or ""
    without_port = re.sub(r":\d+$", "", text)
    value.wrong(f"{text!r} is not a host name, such as shop.example.com{_instead(without_port, _HOST)}")
    return ""


def _instead(text: str, pattern: re.Pattern[str]) -> str:
    """A name that is close to it and allowed."""
    near = re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")
    return f"; write {near}" if pattern.fullmatch(near) else ""
