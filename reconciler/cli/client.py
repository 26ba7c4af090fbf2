"""How the CLI talks to a running `zenvoy up`: HTTP at the control socket in its state directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

TIMEOUT_SECONDS = 10.0


class NotRunning(Exception):
    """No `zenvoy up` answers at this state directory."""


class Rejected(Exception):
    """The reconciler said no; its words."""


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The socket by a short path: that of a Unix socket is at most 107 bytes, a state directory's may be longer."""
    directory = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def ask(control: Path, method: str, path: str) -> Any:
    """The JSON answer. Raises `NotRunning` and `Rejected`."""
    return asyncio.run(_ask(control, method, path))


async def _ask(control: Path, method: str, path: str) -> Any:
    try:
        with _short(control) as socket:
            connector = aiohttp.UnixConnector(path=socket)
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            async with (
                aiohttp.ClientSession("http://zenvoy", connector=connector, timeout=timeout) as session,
                session.request(method, path) as response,
            ):
                answer = await response.json()
                if response.status >= 400:
                    raise Rejected(answer["error"])
                return answer
    except (OSError, aiohttp.ClientConnectionError, TimeoutError) as error:
        raise NotRunning(
            f"no zenvoy runs with the state directory {control.parent} ({error}); start one with `zenvoy up FILE`, "
            "or name its directory with --state-dir or ZENVOY_STATE_DIR"
        ) from None
