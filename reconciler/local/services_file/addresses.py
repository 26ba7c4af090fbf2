"""Addresses and names in a services file."""

from __future__ import annotations

import re

from reconciler.core.address import Address
from reconciler.core.validation import host_problem
from reconciler.local.services_file.values import Value

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


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
    value.wrong(f"{text!r} is not a DNS label; use at most 63 of a-z, 0-9 and -{_suggestion(text)}")
    return ""


def host_name(value: Value) -> str:
    """Return a DNS name without a port; empty if it is not valid."""
    text = value.text("shop.example.com")
    return text if text is not None and value.follows(host_problem, text) else ""


def _suggestion(text: str) -> str:
    """Return a valid name that is close to the text; empty if there is none."""
    close = re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")
    return f", for example {close}" if _NAME.fullmatch(close) else ""
