"""What is in force of all that is asked for, kept up as single ScaledServices change. Pure.

Rule: who asks for what it cannot have keeps what it had, as long as nobody older wants that. Counterpart:
`conflicts.py`, which says who has what. It is called only when a claim has changed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from reconciler.core.spec import Protocol
from reconciler.kubernetes.config.conflicts import FIRST_COME, Settled, settle
from reconciler.kubernetes.config.host_policy import HostPolicy
from reconciler.kubernetes.config.service_config import Entry, Problem

Problems = Mapping[str, tuple[Problem, ...]]


class InForce:
    """The claims of all ScaledServices, settled.

    `reserved` are ports of the proxy's own, by number. `namespaces` are those of the cluster, kept current by the
    caller; None when they are not known.
    """

    def __init__(
        self,
        reserved: Mapping[int, str],
        policy: HostPolicy = FIRST_COME,
        namespaces: Container[str] | None = None,
    ) -> None:
        self._reserved, self._policy, self._namespaces = reserved, policy, namespaces
        self._asked: dict[str, Entry] = {}
        self._had: dict[str, Entry] = {}
        """What each in force asked for, when it got it."""
        self._entries: dict[str, Entry] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._changed: set[str] = set()
        """Those that changed, but for what they claim."""
        self._unsettled = False

    def asked(self, key: str) -> Entry | None:
        """What it asked for last."""
        return self._asked.get(key)

    def ask(self, key: str, entry: Entry | None) -> None:
        """This is what it asks for from now on; None: nothing."""
        before = self._asked.pop(key, None)
        if entry:
            self._asked[key] = entry
        if before and entry and _claim(before) == _claim(entry) and self._had.get(key) is before:
            self._had[key] = entry
            self._changed.add(key)
        else:
            self._unsettled = True

    def unsettle(self) -> None:
        """Settle everything again, because the namespaces of the cluster changed."""
        self._unsettled = True

    def settled(self) -> tuple[dict[str, Entry], Problems]:
        """What is in force, and who does not have all that it asked for. Not to be changed."""
        if self._unsettled:
            self._settle()
        elif self._changed:
            self._entries = self._entries | {key: self._with_hosts(key) for key in self._changed}
        self._changed, self._unsettled = set(), False
        return self._entries, self._problems

    def _settle(self) -> None:
        first = self._settled(self._asked)
        lost = self._asked.keys() - first.entries.keys()
        kept = {key: self._had[key] for key in lost if _has_other(self._had.get(key), self._asked[key])}
        second = self._settled({**self._asked, **kept}) if kept else first
        self._had = {key: kept.get(key, self._asked[key]) for key in second.entries}
        self._entries = second.entries
        self._problems = second.problems | {key: first.problems[key] for key in kept}

    def _settled(self, asked: Mapping[str, Entry]) -> Settled:
        return settle(asked, self._reserved, self._policy, self._namespaces)

    def _with_hosts(self, key: str) -> Entry:
        """As it is asked for, with the hosts that it has."""
        asked, hosts = self._asked[key], self._entries[key].spec.hosts
        return asked if asked.spec.hosts == hosts else replace(asked, spec=replace(asked.spec, hosts=hosts))


def _claim(entry: Entry) -> tuple[object, ...]:
    """All that `settle` looks at."""
    spec = entry.spec
    return spec.protocol is Protocol.TLS, spec.listen, spec.hosts, entry.created, entry.service_key


def _has_other(had: Entry | None, asked: Entry) -> bool:
    return had is not None and had.uid == asked.uid and _claim(had) != _claim(asked)
