"""Durations as people write them, in the way of Go and Kubernetes: `5m`, `1h30m`, `500ms`."""

from __future__ import annotations

import re

_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def duration(text: str) -> float | None:
    """Seconds; a plain `0` needs no unit. None: it is not a duration."""
    if text == "0":
        return 0.0
    if not _WHOLE.fullmatch(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def written(seconds: float) -> str:
    """Return a duration as people write it, in whole seconds or, below one, in milliseconds."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f}ms"
    whole = round(seconds)
    units = ((whole // 3600, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in units if number)
