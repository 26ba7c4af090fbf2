"""The incremental protocol on one ADS stream: requests and responses contain only changes.

Sans-IO; see `stream.py`. Rules:
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
"""

from __future__ import annotations

from xds.ads.codec import MAX_NAMES, DeltaRequest, MalformedError, NodeId, delta_request, delta_response
from xds.ads.stream import Receipt, Stream
from xds.ads.subscription import UNKNOWN, Subscription
from xds.names import CDS, EDS, WILDCARD
from xds.resources.snapshot import Resource


class DeltaStream(Stream):
    """The state of one `DeltaAggregatedResources` stream."""

    mode = "delta"
    complete = frozenset()

    def identify(self, data: bytes) -> NodeId | None:
        return delta_request(data).node

    def receive(self, data: bytes, now: float) -> Receipt:
        request = delta_request(data)
        sub = self.types.get(request.type_url)
        if sub is None:
            return Receipt()
        receipt = self._on_answer(sub, request.nonce, request.error, now)
        first, sub.started = not sub.started, True
        self._subscribe(sub, request, first=first)
        self._unsubscribe(sub, request)
        return self._reconnect(sub, request, now) if first else receipt

    def _subscribe(self, sub: Subscription, request: DeltaRequest, *, first: bool) -> None:
        names = [_own(sub, name) for name in request.subscribe if name != "*"]
        unnamed = first and not request.subscribe and sub.type_url in WILDCARD
        if unnamed or len(names) < len(request.subscribe):
            sub.wildcard = True
            sub.dirty.update(dict.fromkeys(sub.table))
            sub.response_due = not request.initial_versions
        if not first:
            for name in names:
                sub.forget(name)  # a repeated subscription requests the resource again
        sub.names.update(dict.fromkeys(names))
        if len(sub.names) > MAX_NAMES:
            raise MalformedError(f"the stream subscribes to more than {MAX_NAMES} resources of one type")
        sub.dirty.update(dict.fromkeys(names))

    def _unsubscribe(self, sub: Subscription, request: DeltaRequest) -> None:
        for name in request.unsubscribe:
            sub.names.pop(name, None)
            sub.forget(name)
            if sub.wildcard and name != "*":
                # The client cannot know whether the wildcard covers the name, so a response is required.
                sub.sent[name] = UNKNOWN
                sub.dirty[name] = None
        if "*" in request.unsubscribe:
            sub.wildcard = False
            for name in sub.sent.keys() - sub.names.keys():
                sub.forget(name)

    def _reconnect(self, sub: Subscription, request: DeltaRequest, now: float) -> Receipt:
        """Process the versions in the first request for a type."""
        equal = sub.has(request.initial_versions, now)
        if sub.type_url == CDS:
            gone = (name for name in request.initial_versions if name not in sub.table and sub.wants(name))
            sub.retiring.update((name, Resource(name, b"", "")) for name in gone)
        return Receipt(equal if sub.type_url == EDS else ())

    def _encode(self, sub: Subscription, news: list[Resource], gone: list[str]) -> list[bytes]:
        removed = [name for name in gone if self._may_go(sub, name)]
        if not news and not removed and not sub.response_due:
            return []
        nonce = sub.send(news, removed)
        return [delta_response(sub.type_url, sub.table.version, nonce, news, removed)]

    def _may_go(self, sub: Subscription, name: str) -> bool:
        if name not in sub.sent and name not in sub.names:
            return False
        if sub.type_url == EDS and name in self.snapshot:
            return False  # its endpoints are not known yet, so Envoy waits
        return sub.type_url not in (CDS, EDS) or name not in self.types[CDS].retiring

    def _retire(self) -> list[bytes]:
        clusters, endpoints = self.types[CDS], self.types[EDS]
        retired = tuple(clusters.retiring)
        clusters.retiring.clear()
        out = []
        for sub in (clusters, endpoints):
            if removed := [name for name in retired if name in sub.sent]:
                nonce = sub.send((), removed)
                out.append(delta_response(sub.type_url, sub.table.version, nonce, (), removed))
        return out


def _own(sub: Subscription, name: str) -> str:
    """Return the equal string of the resource, so that memory is not used for a copy from each client."""
    present = sub.table.get(name)
    return name if present is None else present.name
