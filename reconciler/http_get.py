"""A minimal HTTP client for questions to programs: one GET, of which only the status is used.

A program is not trusted: the answer is bounded in size and time, redirects are not followed, and no proxy is used.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress

from reconciler.core.address import join_address

MAX_LINE_BYTES = 4096
MAX_HEAD_LINES = 128
"""Number of lines of an answer, with all informational answers before it: a program could send those without end."""
USER_AGENT = "zenvoy"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?\r?\n", re.DOTALL)


class NoStatus(Exception):
    """There is no status; the text continues the question, as in `is not answered within 2 s`."""

    def __init__(self, message: str, is_not_http: bool = False) -> None:
        """`is_not_http` is true if the answer is not HTTP/1, which waiting does not change."""
        super().__init__(message)
        self.is_not_http = is_not_http


async def get_status(host: str, port: int, path: str, seconds: float) -> int:
    """Return the status of `GET path`, asked at an IP address. Raises `NoStatus`."""
    try:
        async with asyncio.timeout(seconds):
            return await ask(host, port, request_head(host, port, path, USER_AGENT))
    except TimeoutError:
        raise NoStatus(f"is not answered within {seconds:g} s") from None
    except OSError as error:
        raise NoStatus(f"is not answered: {error.strerror or error}") from None


def request_head(host: str, port: int, path: str, user_agent: str, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return the head of `GET path`; the headers replace the default ones. All text must be valid in a head."""
    given = {name.lower() for name, _ in headers}
    address = join_address(host, port)
    defaults = (("Host", address), ("User-Agent", user_agent), ("Accept", "*/*"), ("Connection", "close"))
    fields = [*(field for field in defaults if field[0].lower() not in given), *headers]
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


async def ask(host: str, port: int, head: bytes, tls: ssl.SSLContext | None = None, whole_head: bool = False) -> int:
    """Send a request and return the status, with `whole_head` once the head of the answer is complete.

    Raises `NoStatus` and `OSError`. The caller bounds the time.
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=MAX_LINE_BYTES)
    try:
        writer.write(head)
        return await _read_status(reader, whole_head)
    except ValueError:  # a line is too long
        raise NoStatus("is not answered with HTTP", is_not_http=True) from None
    finally:
        if tls:
            writer.transport.abort()  # to close it, TLS would wait for the program
        else:
            writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def parse_status(line: bytes) -> int | None:
    """Return the status in a status line of HTTP/1, or None if it is not one."""
    found = _STATUS_LINE.fullmatch(line)
    return int(found[1]) if found else None


async def _read_status(reader: asyncio.StreamReader, whole_head: bool) -> int:
    status = None
    for _ in range(MAX_HEAD_LINES):
        line = await reader.readline()
        if not line:
            raise NoStatus("is not answered: the connection is closed")
        if status is None:
            status = parse_status(line)
            if status is None:
                break
            if status >= 200 and not whole_head:
                return status
        elif not line.strip():
            if status >= 200:
                return status
            status = None  # the head of an informational answer, such as 103, is complete
    raise NoStatus("is not answered with HTTP", is_not_http=True)
