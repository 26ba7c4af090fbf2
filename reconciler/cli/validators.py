"""What people type, checked: each returns the value, or raises `typer.BadParameter` with what would be right.

For `callback` of an option. Light: all of the options of all commands are made before any command begins.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from urllib.parse import urlsplit

import typer

_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAMESPACE = re.compile(_LABEL)


def address(text: str | None) -> str | None:
    """`ip:port`; None when nothing was typed."""
    from reconciler.local.sockets import parsed

    try:
        return None if text is None else parsed(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def loopback(text: str) -> str:
    """Return `ip:port` of the loopback."""
    from ipaddress import ip_address

    address(text)
    if not ip_address(text.rpartition(":")[0].strip("[]")).is_loopback:
        raise typer.BadParameter(f"{text!r} is not a loopback address; write it as 127.0.0.1:18082")
    return text


def address_or_path(text: str) -> str:
    """`ip:port`, or the path of a socket, which has a slash, or begins with @ where it is abstract."""
    if "/" not in text and not text.startswith("@"):
        address(text)
    elif not text.isprintable() or "://" in text:
        raise typer.BadParameter(f"{text!r} is neither ip:port nor a path; write it as 127.0.0.1:9901 or ./envoy.sock")
    return text


def something(text: str) -> str:
    """Whatever can be printed, but not nothing."""
    if not text.strip() or not text.isprintable():
        raise typer.BadParameter(f"{text!r} is no name that could be told from others; write one as edge-1")
    return text


def ip(text: str) -> str:
    """An IP address, without brackets."""
    from ipaddress import ip_address

    try:
        ip_address(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an IP address; write it as 10.0.0.7 or fd00::7") from None
    return text


def name(text: str) -> str:
    """Of an object of Kubernetes: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/."""
    if not _NAME.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no name; write small letters, digits and hyphens, as zenvoy-0")
    return text


def maybe_name(text: str) -> str:
    """A name, or nothing."""
    return text and name(text)


def namespace(text: str | None) -> str | None:
    """Of Kubernetes; None when none was typed."""
    if text is not None and not _NAMESPACE.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no namespace; write small letters, digits and hyphens, as shop")
    return text


def namespaces(texts: list[str] | None) -> list[str] | None:
    """Several."""
    for text in texts or ():
        namespace(text)
    return texts


def comma_separated(text: str) -> str:
    """Namespaces, `a,b`, or nothing."""
    namespaces([one for one in text.replace(" ", "").split(",") if one])
    return text


def port_range(text: str) -> range:
    """Return the ports of `9902` or `9902-9910`. Raises `ValueError`."""
    first, hyphen, last = text.partition("-")
    numbers = (first, last) if hyphen else (first, first)
    if not all(number.isascii() and number.isdecimal() and len(number) <= 5 for number in numbers):
        raise ValueError
    found = range(int(numbers[0]), int(numbers[1]) + 1)
    if not found or found[0] < 1 or found[-1] > 65535:
        raise ValueError
    return found


def ports(text: str) -> str:
    """Return a port or a range of ports as it was typed."""
    try:
        port_range(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a port or a range of ports; write it as 9902 or 9902-9910") from None
    return text


def open_files(text: str) -> str:
    """Return a limit on open files as it was typed: a number, `soft` or `hard`."""
    if text not in ("soft", "hard") and not (text.isascii() and text.isdecimal() and 0 < int(text[:10]) < 2**31):
        raise typer.BadParameter(f"{text!r} is not a number of files; write soft, hard or a number as 65536")
    return text


def url(text: str | None) -> str | None:
    """Of HTTP; None when nothing was typed."""
    if text is None:
        return None
    try:
        split = urlsplit(text)
        found = split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0
    except ValueError:
        found = False
    if not found or not text.isascii() or not text.isprintable() or " " in text:
        raise typer.BadParameter(f"{text!r} is no URL; write it as http://host:9090")
    return text


def shown_url(text: str | None) -> str | None:
    """The same without a password, for it is shown."""
    if text and "@" in text:
        raise typer.BadParameter(
            "a URL is shown in logs and answers: leave user and password out, and send them as a header or token"
        )
    return url(text)


def headers_file(path: Path | None) -> Path | None:
    """A file with one `Name: value` a line; None when none was typed."""
    from reconciler.envoy.prometheus.settings import read_headers

    try:
        if path is not None:
            read_headers(str(path))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    return path


def seconds(number: float) -> float:
    """Not without an end."""
    if not math.isfinite(number) or number < 0:
        raise typer.BadParameter(f"{number} is not a number of seconds; write 5 or 0.5")
    return number


def directory(path: Path | None) -> Path | None:
    """One that is there, or that can be made."""
    if path is not None:
        for place in (path, *path.absolute().parents):
            if place.exists():
                if not place.is_dir():
                    raise typer.BadParameter(f"{place} is not a directory; write where state may be kept")
                break
    return path
