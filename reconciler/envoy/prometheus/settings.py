"""Settings for Prometheus. Separate from the client, which takes half a second to import and is rarely needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """The address of Prometheus, with credentials and intervals."""

    url: str
    scrape_interval: float
    """Seconds between two scrapes of Envoy. A scrape older than two intervals is stale."""
    timeout: float = 5.0
    """Seconds without data after which a request fails."""
    headers_file: str | None = None
    """One `Name: value` per line. Read for each sample, like the token, since both may be rotated."""
    bearer_token_file: str | None = None
    ca_file: str | None = None

    @property
    def seconds_max(self) -> float:
        """The limit on a whole answer, in seconds: it may arrive in any number of pieces."""
        return 3 * self.timeout


MAX_FILE_BYTES = 65_536
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def read_headers(path: str) -> Mapping[str, str]:
    """Return the headers in a file. Raises `OSError`, and `ValueError` with the line number but not its content."""
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
    """Return the content of a file with a secret, stripped. Raises `OSError` and `ValueError`."""
    with Path(path).open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES} bytes; it is not a file with a secret")
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8; write text into it") from None
