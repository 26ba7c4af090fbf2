"""Numbers as people read them, about as Grafana writes them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from grafana.model import Unit

_SECONDS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_DECIMAL = ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1.0, ""))
_BINARY = ((float(1 << 30), "GiB"), (float(1 << 20), "MiB"), (float(1 << 10), "KiB"), (1.0, "B"))


def readable(value: float, unit: Unit) -> str:
    """A value with its unit."""
    return "no number" if value != value else _WRITERS[unit](value)


def ticks(top: float, unit: Unit, most: int = 4) -> list[float]:
    """Round numbers from 0 to `top`, at most so many steps apart."""
    ladder = _LADDERS.get(unit, _ROUND)
    step = next((step for step in ladder if step * most >= top and (unit is not Unit.COUNT or step >= 1)), top)
    return [place * step for place in range(int(top / step) + 1)]


def _scaled(scales: tuple[tuple[float, str], ...]) -> Callable[[float], str]:
    def write(value: float) -> str:
        size, name = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
        return f"{_short(value / size)} {name}".strip()

    return write


def _short(value: float) -> str:
    """Three digits that count, and no zeros behind the point."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _seconds(value: float) -> str:
    return "0 s" if value == 0 else _scaled(_SECONDS)(value)


_ROUND = tuple(digit * 10.0**power for power in range(-6, 12) for digit in (1, 2, 5))
_LADDERS: Mapping[Unit, tuple[float, ...]] = {
    Unit.SECONDS: (
        *(step for step in _ROUND if step < 10),
        10,
        15,
        20,
        30,
        60,
        120,
        300,
        600,
        1800,
        3600,
        7200,
        21_600,
    ),
    Unit.BYTES: tuple(2.0**power for power in range(50)),
}
_WRITERS: Mapping[Unit, Callable[[float], str]] = {
    Unit.COUNT: _scaled(_DECIMAL),
    Unit.NONE: _short,
    Unit.SECONDS: _seconds,
    Unit.MOMENT: lambda value: datetime.fromtimestamp(value / 1000).strftime("%H:%M:%S"),
    Unit.SHARE: lambda value: f"{_short(100 * value)} %",
    Unit.BYTES: _scaled(_BINARY),
    Unit.BYTES_PER_SECOND: lambda value: f"{_scaled(_BINARY)(value)}/s",
    Unit.PER_SECOND: lambda value: f"{_short(value)} req/s",
    Unit.EVENTS_PER_SECOND: lambda value: f"{_short(value)} /s",
}
