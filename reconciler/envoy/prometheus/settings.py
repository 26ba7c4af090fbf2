"""Where Prometheus is: apart from the client, which takes half a second to import and which not everybody needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """Where Prometheus is, and how to ask it."""

    url: str
    scrape_interval: float
    """Seconds between two scrapes of Envoy; one that is two of them old is too old."""
    timeout: float = 5.0
    """Seconds that it may be silent for within an answer."""
    headers_file: str | None = None
    """One `Name: value` a line. Read again for each round, as is the token, since both may be rotated."""
    bearer_token_file: str | None = None
    ca_file: str | None = None

    @property
    def most(self) -> float:
        """Seconds that one sample may take: an answer may come in any number of pieces."""
        return 3 * self.timeout


MAX_FILE_BYTES = 65_536
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def read_headers(path: str) -> Mapping[str, str]:
    """Return the headers in a file. Raises `OSError`, and `ValueError` with the line, but never with what it says."""
    headers = {}
    for number, line in enumerate(read_secret(path).splitlines(), 1):
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not colon or not _HEADER.fullmatch(name) or not value.isprintable():
            raise ValueError(f"{path}: line {number} is not a header; write it as Name: value")
        headers[name] = value
    return headers


def read_secret(path: str) -> str:
    """Return what a file with a secret says, without spaces around it. Raises `OSError` and `ValueError`."""
    with Path(path).open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES} bytes; it is not a file with a secret")
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8; write text into it") from None
