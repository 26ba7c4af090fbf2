"""Validators of command line options. Each returns the value or raises `typer.BadParameter` with a remedy."""

from __future__ import annotations

from pathlib import Path

import typer

from tproxy import address
from tproxy.io.listener import INHERITED
from tproxy.redirect import rules

SECONDS_MAX = 86_400
DESCRIPTOR_DIGITS_MAX = 7


def listen(text: str) -> str:
    """Validate `ip:port`."""
    try:
        address.sockaddr(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text


def listen_or_inherit(text: str) -> str:
    """Validate `ip:port` or `fd:N`."""
    number = text.removeprefix(INHERITED)
    is_inherited = number != text and number.isdecimal() and len(number) <= DESCRIPTOR_DIGITS_MAX
    return text if is_inherited else listen(text)


def target(text: str) -> str:
    """Validate `host:port` or `unix:path`."""
    if text.startswith("unix:"):
        return text
    try:
        host, port = address.split(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not host or not port:
        raise typer.BadParameter(f"{text!r} is not a host and port; write, for example, zenvoy.zenvoy-system:18000")
    return text


def seconds(number: float, least: int) -> float:
    """Validate a finite duration of at least `least` seconds."""
    if not least <= number <= SECONDS_MAX:
        raise typer.BadParameter(f"{number:g} is out of range; choose {least} to {SECONDS_MAX} seconds")
    return number


def output_file(path: Path | None) -> Path | None:
    """Validate a file that can be created in an existing directory. A device is rejected: it would be replaced."""
    is_file = path is None or path.is_file() or not path.exists()
    if path is not None and (not is_file or not path.absolute().parent.is_dir()):
        raise typer.BadParameter(f"'{path}' is not a file in an existing directory; choose another path")
    return path


def unix_socket(path: Path | None) -> Path | None:
    """Validate the path of a Unix socket, which may be created later, in an existing directory."""
    if path is not None and (not path.absolute().parent.is_dir() or not str(path).isprintable()):
        raise typer.BadParameter(f"'{path}' is not in an existing directory; give the Unix socket of a keeper")
    return path


def ports(text: str) -> str:
    """Validate `FIRST-LAST`."""
    try:
        rules.parse_ports(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text
