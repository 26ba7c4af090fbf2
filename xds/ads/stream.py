"""One Envoy's ADS stream: what to send, and in which order. `delta.py` and `sotw.py` have the rules of each protocol.

Sans-IO: `receive` takes an encoded request, `flush` returns the encoded responses that are due. Responses are computed
when they can be sent, so a slow Envoy receives the current state instead of its history, and needs no queue.

The order is make-before-break: clusters, their endpoints, listeners, routes, then the removal of clusters.
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from xds.ads.attribution import Verdict, reason
from xds.ads.codec import NodeId
from xds.ads.subscription import Subscription
from xds.names import CDS, EDS, LDS, ORDER, RDS, TRIAL
from xds.resources.snapshot import Change, Resource, Snapshot


@dataclass(frozen=True, slots=True)
class Nack:
    """A rejection: Envoy keeps the resources that it had."""

    message: str
    """Envoy's message."""
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The acknowledgements and rejections in a request."""

    acked: tuple[str, ...] = ()
    """Services whose endpoints this Envoy has accepted in the version sent last."""
    nack: Nack | None = None
    verdict: Verdict | None = None
    """None for endpoints that were accepted."""


class Stream(ABC):
    """The protocol state of one stream."""

    mode: str
    complete: frozenset[str]
    """The types whose responses must contain all resources."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.types = {type_url: Subscription(type_url, snapshot.table(type_url)) for type_url in ORDER}
        self.nacks: dict[str, Nack] = {}
        """By type URL, the last rejection, until Envoy has accepted other versions of all rejected resources."""
        self._warming: set[str] = set()
        """Clusters that Envoy warms: it may not have answered the response with their endpoints yet."""

    @abstractmethod
    def identify(self, data: bytes) -> NodeId | None:
        """Return the sender that a request names, without changing the stream. Raises `MalformedError`."""

    @abstractmethod
    def receive(self, data: bytes, now: float) -> Receipt:
        """Process a request. Raises `MalformedError`."""

    def change(self, change: Change) -> None:
        """Record a change of the configuration."""
        clusters = self.types[CDS]
        if TRIAL in change.changed.get(LDS, ()):
            self.types[LDS].forget(TRIAL)  # each trial needs an answer, even if it is equal to an earlier one
        for type_url, names in change.changed.items():
            self.types[type_url].touch(names)
        for type_url, resources in change.removed.items():
            self.types[type_url].touch(res.name for res in resources)
        for res in change.removed.get(CDS, ()):
            if res.name in clusters.sent:
                clusters.retiring[res.name] = res

    def route(self, service: str) -> None:
        """Record that a service's endpoints changed."""
        self.types[EDS].touch((service,))

    def flush(self) -> list[bytes]:
        """Return the responses that are due now, in order."""
        out = [*self._send(self.types[CDS]), *self._send(self.types[EDS])]
        waits = self._clusters_settling()
        for type_url in (LDS, RDS):
            sub = self.types[type_url]
            if sub.response_due or not waits:
                out += self._send(sub)
        if self.types[CDS].retiring and not waits and self._unreferenced():
            out += self._retire()
        return out

    def _send(self, sub: Subscription) -> list[bytes]:
        out = self._send_again(sub)
        if not sub.dirty and not sub.response_due:
            return out
        for name in sub.retiring.keys() & sub.dirty.keys():
            if name in sub.table:
                del sub.retiring[name]  # it is back
        news, gone = sub.changed()
        if sub.type_url == CDS:
            self._warm(news)
        return [*out, *self._encode(sub, news, gone)]

    def _send_again(self, sub: Subscription) -> list[bytes]:
        """Encode resources that were rejected together, in parts; those that changed since are due anyway."""
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
        """Make the endpoints of new and changed clusters due after them.

        Envoy warms such a cluster until it receives endpoints after it, even unchanged ones, and it does not request
        those of a cluster that it had:
        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-warming
        """
        endpoints = self.types[EDS]
        for cluster in clusters:
            self._warming.add(cluster.name)
            if endpoints.wants(cluster.name):
                endpoints.forget(cluster.name)
                endpoints.dirty[cluster.name] = None

    def _clusters_settling(self) -> bool:
        """Return whether listeners and routes must wait for unanswered clusters or for such clusters' endpoints."""
        if self.types[CDS].pending or not self._warming.isdisjoint(self.types[EDS].inflight):
            return True
        self._warming.clear()
        return False

    def _unreferenced(self) -> bool:
        """Return whether this Envoy has applied the listeners and routes that no longer name the retiring clusters."""
        return not any(sub.pending or sub.dirty or sub.rejected for sub in (self.types[LDS], self.types[RDS]))

    def _on_answer(self, sub: Subscription, nonce: str, error: str | None, now: float) -> Receipt:
        """Process the client's answer to a response; an answer to any other nonce has no effect."""
        sending = sub.pending.get(nonce)
        if sending is None:
            return Receipt()
        if error is None:
            acked = sub.ack(nonce, now)
            if not (sub.rejections or sub.suspected):
                self.nacks.pop(sub.type_url, None)
            if sub.type_url == EDS:
                return Receipt(acked)
            return Receipt(verdict=Verdict(sub.type_url, sending.resources))
        return self._reject(sub, nonce, sending.resources, error, now)

    def _reject(self, sub: Subscription, nonce: str, sent: Mapping[str, str], error: str, now: float) -> Receipt:
        """Process a rejection. `sent` has the resources of the response, with their versions.

        Resources that were rejected together are sent again in parts, until Envoy rejects one alone.
        """
        names = sub.nack(nonce)
        splits = len(names) > 1 and sub.type_url not in self.complete
        if splits:
            sub.split(names)
        blamed = names if len(names) == 1 else tuple(name for name in names if _is_named(name, error))
        certain = () if splits else blamed
        verdict = Verdict(sub.type_url, sent, error, certain, is_final=not splits)
        if blamed == (TRIAL,):
            return Receipt(verdict=verdict)  # a trial is not an error
        nack = Nack(error, now)
        present = {name for name, version in sent.items() if sub.sent.get(name) == version} - {TRIAL}
        if stands := present.intersection(blamed or names):  # a version that was replaced meanwhile has no error
            self.nacks[sub.type_url] = nack
            if blamed:
                sub.rejections.update((name, reason(error, name)) for name in stands)
            else:
                sub.suspected.update(stands)
        return Receipt(nack=nack, verdict=verdict)

    @abstractmethod
    def _encode(self, sub: Subscription, news: list[Resource], gone: list[str]) -> list[bytes]:
        """Encode the new and the removed resources of a type; return nothing if no response is due."""

    @abstractmethod
    def _retire(self) -> list[bytes]:
        """Encode the removal of retiring clusters."""


def _is_named(name: str, error: str) -> bool:
    """Return whether an error contains this name, not only a longer name that contains it."""
    return re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w/-])", error) is not None
