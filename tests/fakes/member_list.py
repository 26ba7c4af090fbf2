"""A list of pods, as the replicas see it, that a test changes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class MemberList:
    """The members that should exist, and those that have ended."""

    listed: Collection[str]
    gone: Collection[str] = ()

    def names(self) -> frozenset[str]:
        return frozenset(self.listed)

    def ended(self, name: str) -> bool:
        return name in self.gone and name not in self.listed
