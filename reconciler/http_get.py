"""A minimal HTTP client for questions to programs: one GET, of which only the status line is read.

A program is not trusted: the answer is bounded in size and time, redirects are not followed, and no proxy is used.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from reconciler.core.address import join_address

MAX_LINE_BYTES = 4096
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
            return await _status(host, port, path)
    except TimeoutError:
        raise NoStatus(f"is not answered within {seconds:g} s") from None
    except OSError as error:
        raise NoStatus(f"is not answered: {error.strerror or error}") from None
    except ValueError:  # a line is too long
        raise NoStatus("is not answered with HTTP", is_not_http=True) from None


def parse_status(line: bytes) -> int | None:
    """Return the status in a status line of HTTP/1, or None if it is not one."""
    found = _STATUS_LINE.fullmatch(line)
    return int(found[1]) if found else None


async def _status(host: str, port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_LINE_BYTES)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {join_address(host, port)}\r\nUser-Agent: {USER_AGENT}\r\n"
        writer.write(f"{head}Accept: */*\r\nConnection: close\r\n\r\n".encode())
        while True:
            line = await reader.readline()
            if not line:
                raise NoStatus("is not answered: the connection is closed")
            if (status := parse_status(line)) is None:
                raise NoStatus("is not answered with HTTP", is_not_http=True)
            if status >= 200:
                return status
            while (await reader.readline()).strip():  # the head of an informational answer, such as 103
                pass
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
