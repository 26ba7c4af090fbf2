"""The environment that programs inherit: that of `zenvoy up`, without variables that zenvoy needs itself."""

from __future__ import annotations

import os
from pathlib import Path

_LOCALE = "LC_CTYPE"
_ADDED = "ZENVOY_ADDED_VARIABLES"
_added = set(os.environ.pop(_ADDED, "").split())
"""The names of the variables that this process, or the one that started it, has set for itself."""


def set_default(name: str, value: str) -> None:
    """Set a variable of this process, unless it is set. Programs do not inherit it."""
    if name not in os.environ:
        os.environ[name] = value
        _added.add(name)


def of_programs() -> dict[str, str]:
    """Return the variables that the programs of services inherit."""
    return {name: value for name, value in os.environ.items() if name not in _added}


def of_components() -> dict[str, str]:
    """Return the variables of zenvoy's own processes."""
    return {**os.environ, _ADDED: " ".join(sorted(_added))}


def _has_own_locale() -> bool:
    """Return whether Python has set the locale of this process, as it does in the locale `C`."""
    try:
        at_start = Path("/proc/self/environ").read_bytes()
    except OSError:
        return False
    return _LOCALE in os.environ and f"\0{_LOCALE}=".encode() not in b"\0" + at_start


if _has_own_locale():
    _added.add(_LOCALE)
