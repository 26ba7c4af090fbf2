"""What people type, checked: each returns the value, or raises `typer.BadParameter` with what would be right."""

from __future__ import annotations

from pathlib import Path

import typer

from tproxy import address
from tproxy.io.listener import INHERITED
from tproxy.redirect import rules

MOST_SECONDS = 86_400
MOST_DIGITS = 7
"""Of a descriptor."""


def listen(text: str) -> str:
    """`ip:port`."""
    try:
        address.sockaddr(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text


def listen_or_inherit(text: str) -> str:
    """`ip:port`, or `fd:N`."""
    number = text.removeprefix(INHERITED)
    inherited = number != text and number.isdecimal() and len(number) <= MOST_DIGITS
    return text if inherited else listen(text)


def target(text: str) -> str:
    """`host:port`, or `unix:path`."""
    if text.startswith("unix:"):
        return text
    try:
        host, port = address.split(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not host or not port:
        raise typer.BadParameter(f"{text!r} is no host and port; write zenvoy.zenvoy-system:18000")
    return text


def seconds(number: float, least: int) -> float:
    """At least so many, and not without an end."""
    if not least <= number <= MOST_SECONDS:
        raise typer.BadParameter(f"{number:g} is not a number of seconds from {least} to {MOST_SECONDS}")
    return number


def beside_others(path: Path | None) -> Path | None:
    """A file that can be made, in a directory that is there; None: none. A device would be replaced by a file."""
    is_file = path is None or path.is_file() or not path.exists()
    if path is not None and (not is_file or not path.absolute().parent.is_dir()):
        raise typer.BadParameter(f"'{path}' is no file in a directory that is there")
    return path


def unix_socket(path: Path | None) -> Path | None:
    """The path of a Unix socket, which may come later, in a directory that is there; None: none."""
    if path is not None and (not path.absolute().parent.is_dir() or not str(path).isprintable()):
        raise typer.BadParameter(f"'{path}' is not in a directory that exists; write the socket of a keeper")
    return path


def ports(text: str) -> str:
    """`FIRST-LAST`."""
    try:
        rules.parse_ports(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text
