"""Where Envoys, or holders, are connected, and which were lately and are nowhere now. Pure but for the clock handed in.

One that went away may go on by what it last knew, so for a while it still counts; at another replica it is not away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Presence:
    """All replicas' Envoys, or holders, by name. `ticks` are seconds that no one can set; `ended` says of one that is
    away whether it has ended for sure."""

    def __init__(self, ticks: Callable[[], float], forget_seconds: float, ended: Callable[[str], bool]) -> None:
        self._ticks, self._forget_seconds, self._ended = ticks, forget_seconds, ended
        self._at: dict[str, frozenset[str]] = {}
        self._away: dict[str, float] = {}
        self.connected: frozenset[str] = frozenset()

    def says(self, replica: str, names: Iterable[str]) -> None:
        """These are connected to that replica, and no others."""
        self._at[replica] = frozenset(names)
        before, self.connected = self.connected, frozenset().union(*self._at.values())
        self._away.update(dict.fromkeys(before - self.connected, self._ticks()))
        for name in self.connected & self._away.keys():
            del self._away[name]

    def remember(self, names: Iterable[str]) -> None:
        """These were connected to somebody when they were last heard of."""
        now = self._ticks()
        self._away.update({name: now for name in names if name not in self.connected})

    def forget(self) -> bool:
        """Count those no longer that have ended, or are away for too long; whether there were any."""
        now, before = self._ticks(), len(self._away)
        missed = {name: at for name, at in self._away.items() if now - at < self._forget_seconds}
        self._away = {name: at for name, at in missed.items() if not self._ended(name)}
        return len(self._away) < before

    def where(self) -> dict[str, str]:
        """At which replica each of those that are connected is."""
        return {name: replica for replica, names in self._at.items() for name in names}

    @property
    def away(self) -> frozenset[str]:
        return frozenset(self._away)

    @property
    def known(self) -> frozenset[str]:
        return self.connected | self._away.keys()
