"""One Envoy's subscription to one type: the names, the versions that were sent, and those that it acknowledged.

No I/O, no bytes. A resource is not sent again until it changes or is requested again, so that a rejected resource
cannot cause a loop. Resources that were rejected together are sent again in ever smaller groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from xds.resources.snapshot import Resource, Table

UNKNOWN = "?"
"""A version that no resource has, for a name whose version at the client is unknown."""


@dataclass(frozen=True, slots=True)
class Sending:
    """A response without an answer yet: its versions by name, and the version of the whole type."""

    version: str
    resources: Mapping[str, str]
    removed: tuple[str, ...] = ()


@dataclass(slots=True)
class Subscription:
    """One type on one stream."""

    type_url: str
    table: Table
    started: bool = False
    """The client has requested this type."""
    wildcard: bool = False
    names_given: bool = False
    """The client has named a resource: from now on, no names means no resources."""
    names: dict[str, None] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    """By name, the version that the client has or is about to receive."""
    dirty: dict[str, None] = field(default_factory=dict)
    """Names to compare before the next response."""
    response_due: bool = False
    """The client waits for a response even if it is empty."""
    retiring: dict[str, Resource] = field(default_factory=dict)
    """Removed resources that the client must keep for now."""
    pending: dict[str, Sending] = field(default_factory=dict)
    unanswered: int = 0
    """The number of responses in `pending` and of the resources in them."""
    inflight: dict[str, str] = field(default_factory=dict)
    """By name, the nonce of the last response that contained it, until that is answered."""
    acked: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By name, the version last acknowledged, and when (seconds since the epoch)."""
    acked_version: str = ""
    nonce: str = ""
    rejected: bool = False
    """The client rejected the last response that it answered."""
    rejections: dict[str, str] = field(default_factory=dict)
    """Names that the client rejected, with its message, until it accepts another version."""
    suspected: set[str] = field(default_factory=set)
    """Names in a response that the client rejected without naming one. An acknowledgement of any of them clears all."""
    again: list[tuple[str, ...]] = field(default_factory=list)
    """Names that were rejected together, to be sent again in these groups."""
    _nonces: count[int] = field(default_factory=lambda: count(1))

    def wants(self, name: str) -> bool:
        """Return whether the client has subscribed to this name."""
        return self.wildcard or name in self.names

    def has_accepted(self, name: str, version: str) -> bool:
        """Return whether this version of a resource is the last that the client acknowledged."""
        return self.acked.get(name, ("", 0.0))[0] == version

    def has_unanswered(self, name: str) -> bool:
        """Return whether the client has not answered the current version of a resource yet."""
        if not (self.started and self.wants(name)):
            return False
        return name in self.inflight or name in self.dirty or any(name in group for group in self.again)

    def touch(self, names: Iterable[str]) -> None:
        """Compare these names before the next response, unless the client does not have or want them."""
        if not self.started:
            return
        self.dirty.update((name, None) for name in names if self.wants(name) or name in self.sent)

    def forget(self, name: str) -> None:
        """Forget that this name was sent to the client."""
        self.sent.pop(name, None)
        self.acked.pop(name, None)
        self.inflight.pop(name, None)
        self.rejections.pop(name, None)
        self.suspected.discard(name)

    def changed(self) -> tuple[list[Resource], list[str]]:
        """Take the dirty names; return the resources to send and the names that are gone."""
        news, gone = [], []
        for name in self.dirty:
            present = self.table.get(name)
            if present is None:
                gone.append(name)
            elif self.wants(name) and self.sent.get(name) != present.version:
                news.append(present)
        self.dirty.clear()
        return news, gone

    def wanted(self) -> list[Resource]:
        """Return all existing resources that the client has subscribed to."""
        names: Iterable[str] = self.table if self.wildcard else self.names
        return [self.table[name] for name in names if name in self.table]

    def send(self, resources: Iterable[Resource], removed: Sequence[str] = ()) -> str:
        """Record a response as sent; return its nonce."""
        nonce = self.nonce = format(next(self._nonces), "x")
        versions = {res.name: res.version for res in resources}
        self.sent.update(versions)
        self.inflight.update(dict.fromkeys(versions, nonce))
        for name in removed:
            self.forget(name)
        self.pending[nonce] = Sending(self.table.version, versions, tuple(removed))
        self.unanswered += 1 + len(versions)
        self.response_due = False
        return nonce

    def ack(self, nonce: str, now: float) -> tuple[str, ...]:
        """Record that the client applied a response; return the names that it now has in the version sent last."""
        sending, settled = self._answered(nonce)
        self.rejected = False
        self.acked_version = sending.version
        self.acked.update((name, (sending.resources[name], now)) for name in settled)
        if self.rejections:
            for name in settled:
                self.rejections.pop(name, None)
        if not self.suspected.isdisjoint(settled):
            self.suspected.clear()
        return settled

    def nack(self, nonce: str) -> tuple[str, ...]:
        """Record that the client rejected a response; return the names in it.

        They stay noted as sent, not as acknowledged: the client keeps what it had.
        """
        sending, _ = self._answered(nonce)
        self.rejected = True
        if sending.resources:  # removals may have been rejected together with them, and are sent again
            for name in sending.removed:
                if name not in self.table and name not in self.sent:
                    self.sent[name] = UNKNOWN
                    self.dirty[name] = None
        return tuple(sending.resources)

    def split(self, names: tuple[str, ...]) -> None:
        """Send resources that were rejected together again, in two halves, to find the rejected one."""
        middle = len(names) // 2
        self.again += [names[:middle], names[middle:]]

    def send_again(self, nonce: str) -> None:
        """Send the resources of a response again, because the client will never answer it."""
        for name in self._answered(nonce)[1]:
            self.forget(name)
            self.dirty[name] = None

    def _answered(self, nonce: str) -> tuple[Sending, tuple[str, ...]]:
        """Take a response from `pending`; return it, and those of its names that no later response contained."""
        sending = self.pending.pop(nonce)
        self.unanswered -= 1 + len(sending.resources)
        landed = tuple(name for name in sending.resources if self.inflight.get(name) == nonce)
        for name in landed:
            del self.inflight[name]
        if not self.inflight:
            self.inflight.clear()  # a dict shrinks only when it is cleared, and this one may have contained all names
        return sending, landed

    def acked_at(self, name: str) -> float | None:
        """Return when the client acknowledged the current version of this name; None if it has not."""
        present, acked = self.table.get(name), self.acked.get(name)
        if present is None or acked is None or name in self.inflight or acked[0] != present.version:
            return None
        return acked[1]

    def has(self, versions: Mapping[str, str], now: float) -> tuple[str, ...]:
        """Record the versions that the client has from an earlier stream; return the names that are up to date."""
        equal = []
        for name, version in versions.items():
            if not self.wants(name):
                continue
            self.sent[name] = version
            self.dirty[name] = None
            present = self.table.get(name)
            if present is not None and present.version == version:
                self.acked[name] = (version, now)
                equal.append(name)
        if len(equal) == len(versions) and all(res.name in versions for res in self.wanted()):
            self.acked_version = self.table.version
        return tuple(equal)
