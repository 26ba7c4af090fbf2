"""One Envoy's ADS stream, either protocol: who must be told what, and in which order.

Sans-IO: `receive` takes a request's bytes, `flush` gives the responses that are due. Both protocols' own rules are in
`delta.py` and `sotw.py`. What is due is worked out when it can be sent, so a slow Envoy is told the present, not the
history, and costs no memory.

Order is make-before-break: clusters, their endpoints, listeners, routes, and only then the clusters that are gone.
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from xds.ads.attribution import Verdict, reason
from xds.ads.codec import NodeId
from xds.ads.subscription import Subscription
from xds.names import TRIAL
from xds.resources.snapshot import Change, Resource, Snapshot
from xds.types import CDS, EDS, LDS, ORDER, RDS


@dataclass(frozen=True, slots=True)
class Nack:
    """Envoy rejected something and keeps what it had."""

    type_url: str
    resources: tuple[str, ...]
    """The resources that it rejected, as far as its message says; empty when that is not known."""
    message: str
    """Envoy's own words."""
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a request said, besides asking."""

    acked: tuple[str, ...] = ()
    """Services whose endpoints this Envoy now has as they were last sent."""
    nack: Nack | None = None
    verdict: Verdict | None = None
    """None for endpoints that were accepted."""


class Stream(ABC):
    """The protocol state of one stream."""

    mode: str

    def __init__(self, world: Snapshot) -> None:
        self.world = world
        self.types = {type_url: Subscription(type_url, world.table(type_url)) for type_url in ORDER}
        self.nacks: dict[str, Nack] = {}
        """By type URL, the last rejection, until Envoy has something better for all that it rejected."""
        self._fresh: set[str] = set()

    @property
    def has_refused(self) -> bool:
        """Whether Envoy rejected a resource and has nothing better for it since."""
        return any(sub.refused for sub in self.types.values())

    @abstractmethod
    def identify(self, data: bytes) -> NodeId | None:
        """Return who sent a request, if it says so, and change nothing. Raises `MalformedError`."""

    @abstractmethod
    def receive(self, data: bytes, now: float) -> Receipt:
        """Take a request. Raises `MalformedError`."""

    def change(self, change: Change) -> None:
        """Note that the configuration changed."""
        clusters = self.types[CDS]
        if TRIAL in change.changed.get(LDS, ()):
            self.types[LDS].forget(TRIAL)  # each question needs an answer, also one that was asked before
        for type_url, names in change.changed.items():
            self.types[type_url].touch(names)
        for type_url, resources in change.removed.items():
            self.types[type_url].touch(res.name for res in resources)
        for res in change.removed.get(CDS, ()):
            if res.name in clusters.sent:
                clusters.retiring[res.name] = res

    def route(self, service: str) -> None:
        """Note that a service's endpoints changed."""
        self.types[EDS].touch((service,))

    def flush(self) -> list[bytes]:
        """Return the responses that are due now, in order."""
        out = [*self._send(self.types[CDS]), *self._send(self.types[EDS])]
        waits = self._clusters_settling()
        for type_url in (LDS, RDS):
            sub = self.types[type_url]
            if sub.owed or not waits:
                out += self._send(sub)
        if self.types[CDS].retiring and not waits and self._unreferenced():
            out += self._retire()
        return out

    def _send(self, sub: Subscription) -> list[bytes]:
        out = self._send_again(sub)
        if not sub.dirty and not sub.owed:
            return out
        for name in sub.retiring.keys() & sub.dirty.keys():
            if sub.table.get(name) is not None:
                del sub.retiring[name]  # it is back
        news, gone = sub.changed()
        if sub.type_url == CDS:
            self._warm(news)
        return [*out, *self._encode(sub, news, gone)]

    def _send_again(self, sub: Subscription) -> list[bytes]:
        """Encode what was rejected together with others, in parts; what has changed since is due anyway."""
        out = []
        for group in sub.again:
            present = (sub.table.get(name) for name in group if sub.wants(name))
            same = [one for one in present if one is not None and sub.sent.get(one.name) == one.version]
            if sub.type_url == CDS:
                self._warm(same)
            out += self._encode(sub, same, [])
        sub.again.clear()
        return out

    def _warm(self, clusters: list[Resource]) -> None:
        """See to it that new and changed clusters are followed by their endpoints.

        Envoy warms such a cluster until it is given endpoints after it, even unchanged ones, and it does not ask for
        those of a cluster that it had:
        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-warming
        """
        endpoints = self.types[EDS]
        for cluster in clusters:
            self._fresh.add(cluster.name)
            if endpoints.wants(cluster.name):
                endpoints.forget(cluster.name)
                endpoints.dirty[cluster.name] = None

    def _clusters_settling(self) -> bool:
        """Say whether listeners and routes must wait, for clusters on their way or for such clusters' endpoints."""
        if self.types[CDS].pending or not self._fresh.isdisjoint(self.types[EDS].inflight):
            return True
        self._fresh.clear()
        return False

    def _unreferenced(self) -> bool:
        """Say whether this Envoy has applied the listeners and routes that no longer name the retiring clusters."""
        return not any(sub.pending or sub.dirty or sub.rejected for sub in (self.types[LDS], self.types[RDS]))

    def _settle(self, sub: Subscription, nonce: str, error: str | None, now: float) -> Receipt:
        """Take the client's verdict on a response; one on a response that is not on its way means nothing."""
        sending = sub.pending.get(nonce)
        if sending is None:
            return Receipt()
        if error is None:
            acked = sub.ack(nonce, now)
            if not (sub.refused or sub.suspected):
                self.nacks.pop(sub.type_url, None)
            if sub.type_url == EDS:
                return Receipt(acked)
            return Receipt(verdict=Verdict(sub.type_url, sending.resources))
        names = sub.nack(nonce)
        splits = len(names) > 1 and self._may_split(sub)
        if splits:
            sub.split(names)
        blamed = names if len(names) == 1 else tuple(name for name in names if _is_named(name, error))
        certain = () if splits else blamed
        verdict = Verdict(sub.type_url, sending.resources, error, certain, is_final=not splits)
        if blamed == (TRIAL,):
            return Receipt(verdict=verdict)  # nothing is wrong: it was only asked
        nack = Nack(sub.type_url, blamed, error, now)
        present = {name for name, version in sending.resources.items() if sub.sent.get(name) == version} - {TRIAL}
        if stands := present.intersection(blamed or names):  # of what is replaced or gone meanwhile nothing stands
            self.nacks[sub.type_url] = nack
            if blamed:
                sub.refused.update((name, reason(error, name)) for name in stands)
            else:
                sub.suspected.update(stands)
        return Receipt(nack=nack, verdict=verdict)

    @abstractmethod
    def _may_split(self, sub: Subscription) -> bool:
        """Return whether a response of this type may have only some of the resources that are due."""

    @abstractmethod
    def _encode(self, sub: Subscription, news: list[Resource], gone: list[str]) -> list[bytes]:
        """Encode what is new and what is gone of a type; nothing if there is nothing to say."""

    @abstractmethod
    def _retire(self) -> list[bytes]:
        """Encode the removal of the clusters that are gone."""


def _is_named(name: str, error: str) -> bool:
    """Say whether an error speaks of this name, and not only of a longer one that it is a part of."""
    return re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-])", error) is not None
