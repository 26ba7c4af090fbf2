"""Validators for the `callback` of an option: they return the value, or raise `typer.BadParameter` with an example.

The options of all commands are created at every start, so this module imports other modules in functions.
"""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import typer

_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAMESPACE = re.compile(_LABEL)
_PORTS = re.compile("([0-9]{1,5})(?:-([0-9]{1,5}))?")


def address(text: str | None) -> str | None:
    """Validate `ip:port`; None without a value."""
    from ipaddress import ip_address

    if text is None:
        return None
    host, _, port = text.rpartition(":")
    with suppress(ValueError):
        ip = ip_address(host.removeprefix("[").removesuffix("]"))
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed == (ip.version == 6) and port.isdecimal() and 0 < int(port) < 65536:
            return text
    raise typer.BadParameter(f"{text!r} is not ip:port; use for example 127.0.0.1:18080 or [::1]:18080")


def pod_address(text: str | None) -> str | None:
    """Validate `ip:port`, whose IPv6 address may lack its brackets, as in `$(POD_IP):9902` of a pod."""
    if text is not None and text.count(":") > 1 and "[" not in text:
        host, _, port = text.rpartition(":")
        text = f"[{host}]:{port}"
    return address(text)


def goal(text: str) -> str:
    """Validate a state, in any case, or `ready`."""
    from reconciler.core.record import State
    from reconciler.core.text import closest_match

    known = {name.lower(): str(name) for name in ("ready", *State)}
    if found := known.get(text.lower()):
        return found
    guess = closest_match(text, known.values())
    hint = f"did you mean {guess}?" if guess else f"use one of: {', '.join(known.values())}"
    raise typer.BadParameter(f"{text!r} is not a state; {hint}")


def states(texts: list[str] | None) -> list[str]:
    """Validate states, in any case."""
    found = [goal(text) for text in texts or ()]
    if "ready" in found:
        raise typer.BadParameter("'ready' is not a state; use for example Active")
    return found


def loopback(text: str) -> str:
    """Validate `ip:port` of the loopback interface."""
    from reconciler.local.sockets import is_loopback

    address(text)
    if not is_loopback(text):
        raise typer.BadParameter(f"{text!r} is not a loopback address; use for example 127.0.0.1:18082")
    return text


def address_or_path(text: str) -> str:
    """Validate `ip:port`, or the path of a socket: with a slash, or with a leading @ if it is abstract."""
    if "/" not in text and not text.startswith("@"):
        address(text)
    elif not text.isprintable() or "://" in text:
        raise typer.BadParameter(
            f"{text!r} is neither ip:port nor a path; use for example 127.0.0.1:9901 or ./envoy.sock"
        )
    return text


def identifier(text: str) -> str:
    """Validate a text that is printable and not empty."""
    if not text.strip() or not text.isprintable():
        raise typer.BadParameter(f"{text!r} is not an identifier; use for example edge-1")
    return text


def ip(text: str) -> str:
    """Validate an IP address, without brackets."""
    from ipaddress import ip_address

    try:
        ip_address(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an IP address; use for example 10.0.0.7 or fd00::7") from None
    return text


def name(text: str) -> str:
    """Validate the name of a Kubernetes object.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
    """
    if not _NAME.fullmatch(text):
        raise typer.BadParameter(
            f"{text!r} is not a name; use lowercase letters, digits and hyphens, for example zenvoy-0"
        )
    return text


def optional_name(text: str) -> str:
    """Validate a name, or an empty text."""
    return text and name(text)


def namespace(text: str | None) -> str | None:
    """Validate a Kubernetes namespace; None without a value."""
    if text is not None and not _NAMESPACE.fullmatch(text):
        raise typer.BadParameter(
            f"{text!r} is not a namespace; use lowercase letters, digits and hyphens, for example shop"
        )
    return text


def namespaces(texts: list[str] | None) -> list[str] | None:
    """Validate a list of namespaces."""
    for text in texts or ():
        namespace(text)
    return texts


def comma_separated(text: str) -> str:
    """Validate a comma-separated list of namespaces, or an empty text."""
    namespaces([one for one in text.replace(" ", "").split(",") if one])
    return text


def ports(text: str) -> str:
    """Validate a port, or a range of ports: `9902` or `9902-9910`."""
    found = _PORTS.fullmatch(text)
    if found is None or not 0 < int(found[1]) <= int(found[2] or found[1]) < 65536:
        raise typer.BadParameter(f"{text!r} is not a port or a range of ports; use for example 9902 or 9902-9910")
    return text


def open_files(text: str) -> str:
    """Validate a limit on open files: a number, `soft` or `hard`."""
    if text not in ("soft", "hard") and not (text.isascii() and text.isdecimal() and 0 < int(text[:10]) < 2**31):
        raise typer.BadParameter(f"{text!r} is not a number of files; use soft, hard or a number, for example 65536")
    return text


def url(text: str | None) -> str | None:
    """Validate an HTTP URL; None without a value."""
    if text is None:
        return None
    try:
        split = urlsplit(text)
        found = split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0
    except ValueError:
        found = False
    if not found or not text.isascii() or not text.isprintable() or " " in text:
        raise typer.BadParameter(f"{text!r} is not a URL; use for example http://host:9090")
    return text


def url_without_password(text: str | None) -> str | None:
    """Validate a URL that is shown, and therefore must not contain a password."""
    if text and "@" in text:
        raise typer.BadParameter(
            "the URL appears in logs and answers; remove user and password, and send them as a header or token"
        )
    return url(text)


def headers_file(path: Path | None) -> Path | None:
    """Validate a file with one `Name: value` per line; None without a value."""
    from reconciler.envoy.prometheus.settings import read_headers

    try:
        if path is not None:
            read_headers(str(path))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    return path


def seconds(number: float) -> float:
    """Validate a finite number of seconds."""
    if not math.isfinite(number) or number < 0:
        raise typer.BadParameter(f"{number} is not a number of seconds; use for example 5 or 0.5")
    return number


def named_path(text: str | Path) -> Path:
    """Return the path of an option; an empty text, as of a variable that is not set, would be the current directory."""
    if text == "":
        raise typer.BadParameter("the path is empty; name a directory, or leave the option out")
    return Path(text)


def lasting_file(path: Path) -> Path:
    """Validate a file that other processes can read, again and again: not a pipe, and not `/dev/stdin`."""
    is_descriptor = os.path.realpath(path.parent).startswith("/proc/") or (
        path.is_symlink() and os.readlink(path).startswith("/proc/")
    )
    if is_descriptor or path.is_fifo():
        raise typer.BadParameter(f"{path} cannot be read again after a change; save its content as a file, and name it")
    return path


def directory(path: Path | None) -> Path | None:
    """Validate a directory that exists or can be created."""
    if path is not None:
        place = next(one for one in (path, *path.absolute().parents) if one.exists())
        if not place.is_dir():
            raise typer.BadParameter(f"{place} is not a directory; choose another with --state-dir")
    return path
