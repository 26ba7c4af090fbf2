"""The state-of-the-world protocol on one ADS stream: every request contains all names.

Sans-IO; see `stream.py`. A response contains all clusters or listeners, but only the changed endpoints and routes.
Rules:
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#basic-protocol-overview
"""

from __future__ import annotations

from xds.ads.codec import NodeId, SotwDecoder, SotwRequest, sotw_response
from xds.ads.stream import Receipt, Stream
from xds.ads.subscription import Subscription
from xds.names import CDS, WILDCARD
from xds.resources.snapshot import Resource, Snapshot


class SotwStream(Stream):
    """The state of one `StreamAggregatedResources` stream."""

    mode = "sotw"
    complete = WILDCARD

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self._decoder = SotwDecoder()
        self._named: dict[str, tuple[str, ...]] = {}
        """By type URL, the names in the request that was applied last."""

    def identify(self, data: bytes) -> NodeId | None:
        return SotwDecoder().decode(data).node

    def receive(self, data: bytes, now: float) -> Receipt:
        request = self._decoder.decode(data)
        sub = self.types.get(request.type_url)
        if sub is None:
            return Receipt()
        receipt = self._read_answer(sub, request, now)
        first, sub.started = not sub.started, True
        if first or request.nonce in ("", sub.nonce):
            self._subscribe(sub, request, first=first)
        return receipt

    def _read_answer(self, sub: Subscription, request: SotwRequest, now: float) -> Receipt:
        """Process the answer in a request, if there is one. Earlier responses that it skips are sent again."""
        sending = sub.pending.get(request.nonce)
        if sending is None or (request.error is None and request.version != sending.version):
            return Receipt()
        for older in tuple(sub.pending):
            if older == request.nonce:
                break
            sub.send_again(older)
        return self._on_answer(sub, request.nonce, request.error, now)

    def _subscribe(self, sub: Subscription, request: SotwRequest, *, first: bool) -> None:
        """Apply the names in a request, which replace those in the request before."""
        if request.names is self._named.get(sub.type_url) and not first:
            return
        self._named[sub.type_url] = request.names
        sub.names_given = sub.names_given or bool(request.names)
        names = dict.fromkeys(request.names)
        legacy = not sub.names_given and sub.type_url in WILDCARD
        wildcard = legacy or "*" in names
        names.pop("*", None)
        if not first and wildcard == sub.wildcard and names.keys() == sub.names.keys():
            return
        added = [name for name in names if name not in sub.names]
        widened = wildcard and not sub.wildcard
        sub.names, sub.wildcard = names, wildcard
        for name in [name for name in sub.sent if not sub.wants(name)]:
            sub.forget(name)
        sub.dirty.update(dict.fromkeys(sub.table if widened else added))
        # A response with clusters or listeners is complete, so it is also due when a requested one does not exist.
        sub.response_due = sub.type_url in WILDCARD and (first or widened or bool(added))

    def _encode(self, sub: Subscription, news: list[Resource], gone: list[str]) -> list[bytes]:
        missed = [name for name in gone if name in sub.sent and name not in sub.retiring]
        for name in missed:
            sub.forget(name)
        if sub.type_url not in WILDCARD:
            return self._response(sub, news) if news else []
        if not news and not missed and not sub.response_due:
            return []
        return self._response(sub, [*sub.wanted(), *sub.retiring.values()])

    def _retire(self) -> list[bytes]:
        clusters = self.types[CDS]
        for name in clusters.retiring:
            clusters.forget(name)
        clusters.retiring.clear()
        return self._response(clusters, clusters.wanted())

    @staticmethod
    def _response(sub: Subscription, resources: list[Resource]) -> list[bytes]:
        nonce = sub.send(resources)
        return [sotw_response(sub.type_url, sub.table.version, nonce, resources)]
