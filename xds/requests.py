"""Reads what Envoy sends: DiscoveryRequest and DeltaDiscoveryRequest, only the fields that matter.

Pure. Written by hand because betterproto2 needs a large part of a second for the 10,000 names that a state-of-the-world
client repeats in every acknowledgement; its counterpart, for answers, is `responses.py`.

Protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
Messages: envoy/service/discovery/v3/discovery.proto
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xds.types import ORDER
from xds.wire import MalformedError, fields, read_field, string

_STRING_VALUE, _STRUCT_VALUE = 3, 5  # of google.protobuf.Value
MOST_NAMES = 20_000
"""Resources of one type: twice the services that are supported, as one may be leaving while another comes."""
MOST_NAME = 400
"""Bytes of a resource's name; the longest of a service (namespace, name and a suffix) has less."""
MOST_WORD = 256
"""Bytes of a node id, a cluster, a version, a nonce, a type URL."""
MOST_ERROR = 4096
"""Bytes that are kept of the text of a rejection."""
_QUOTES, _QUOTED = b"goo.gle/debug", b"Proto constraint validation failed"
"""Envoy quotes a resource that breaks a rule for its fields between these."""
_NAMES_KEY = 0x1A  # field 3, length-delimited: DiscoveryRequest.resource_names


@dataclass(frozen=True, slots=True)
class NodeId:
    """Who asks: what Envoy's bootstrap (`bootstrap.py`) says of its node."""

    id: str
    cluster: str
    stats: str = ""
    """`ip:port` where its statistics can be read; empty when it does not say."""


@dataclass(slots=True)
class DeltaRequest:
    """One DeltaDiscoveryRequest."""

    type_url: str = ""
    nonce: str = ""
    node: NodeId | None = None
    error: str | None = None
    """Envoy's message when it rejects the response of `nonce`; None when it accepts it."""
    subscribe: list[str] = field(default_factory=list)
    unsubscribe: list[str] = field(default_factory=list)
    initial_versions: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class SotwRequest:
    """One DiscoveryRequest (state of the world)."""

    type_url: str = ""
    nonce: str = ""
    node: NodeId | None = None
    error: str | None = None
    version: str = ""
    names: tuple[str, ...] = ()


def node_id(node_field: int, data: bytes) -> str:
    """Return the node id in a request whose node has this field number; empty if there is none.

    Of a field that comes twice the last counts, as in the decoders below. Raises `MalformedError`.
    """
    node = dict(fields(data)).get(node_field, b"")
    return _word(dict(fields(node)).get(1, b""))


def delta_request(data: bytes) -> DeltaRequest:
    """Decode a DeltaDiscoveryRequest. Raises `MalformedError`."""
    request = DeltaRequest()
    for number, payload in fields(data):
        if number == 3:
            request.subscribe.append(_name(payload))
        elif number == 5:
            name, version = _map_entry(payload)
            request.initial_versions[name] = version
        elif number == 4:
            request.unsubscribe.append(_name(payload))
        elif number == 2:
            request.type_url = _word(payload)
        elif number == 6:
            request.nonce = _word(payload)
        elif number == 1:
            request.node = _node(payload)
        elif number == 7:
            request.error = _status_message(payload)
    _bound(len(request.subscribe), len(request.unsubscribe), len(request.initial_versions))
    return request


class SotwDecoder:
    """Decodes one stream's DiscoveryRequests, and remembers each type's names as bytes.

    Every acknowledgement repeats all names: those that equal the last ones are compared, not decoded.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[bytes, tuple[str, ...]]] = {}

    def decode(self, data: bytes) -> SotwRequest:
        """Decode a DiscoveryRequest. Raises `MalformedError`."""
        request = SotwRequest()
        names: list[str] = []
        begin = -1
        end = at = 0
        while at < len(data):
            if data[at] == _NAMES_KEY and begin < 0:
                region, known = self._known(data, at)
                begin, end = at, at + len(region)
                names += known
                if region:
                    at = end
                    continue
            number, payload, at = read_field(data, at)
            if number == 3:
                names.append(_name(payload))
                end = at
            else:
                self._set(request, number, payload)
        _bound(len(names))
        request.names = tuple(names)
        if request.type_url in ORDER:
            self._last[request.type_url] = (data[max(begin, 0) : end], request.names)
        return request

    def _known(self, data: bytes, at: int) -> tuple[bytes, tuple[str, ...]]:
        """Return the remembered names that begin at `at`, as bytes and decoded; both empty when none do."""
        matching = (last for last in self._last.values() if data.startswith(last[0], at))
        return max(matching, key=lambda last: len(last[0]), default=(b"", ()))

    @staticmethod
    def _set(request: SotwRequest, number: int, payload: bytes) -> None:
        if number == 1:
            request.version = _word(payload)
        elif number == 2:
            request.node = _node(payload)
        elif number == 4:
            request.type_url = _word(payload)
        elif number == 5:
            request.nonce = _word(payload)
        elif number == 6:
            request.error = _status_message(payload)


def _node(data: bytes) -> NodeId:
    found = {number: payload for number, payload in fields(data) if number in (1, 2, 3)}
    ours = _values(dict(fields(_values(found.get(3, b"")).get("zenvoy", b""))).get(_STRUCT_VALUE, b""))
    stats = dict(fields(ours.get("stats", b""))).get(_STRING_VALUE, b"")
    return NodeId(_word(found.get(1, b"")), _word(found.get(2, b"")), _word(stats))


def _values(struct: bytes) -> dict[str, bytes]:
    """Return the values of a google.protobuf.Struct, still encoded, by name."""
    entries = (dict(fields(payload)) for number, payload in fields(struct) if number == 1)
    return {string(entry.get(1, b"")): entry.get(2, b"") for entry in entries}


def _map_entry(data: bytes) -> tuple[str, str]:
    found = dict(fields(data))
    return _name(found.get(1, b"")), _word(found.get(2, b""))


def _status_message(data: bytes) -> str:
    said = dict(fields(data)).get(2, b"")
    begin, end = said.find(_QUOTES), said.rfind(_QUOTED)
    if 0 <= begin < end:  # the settings of many services, which are not for every reader
        said = said[:begin] + said[end:]
    text = said[:MOST_ERROR].decode(errors="replace")
    return "".join(char if char.isprintable() else " " for char in text)


def _bound(*counts: int) -> None:
    if max(counts) > MOST_NAMES:
        raise MalformedError(f"a request names {max(counts)} resources; {MOST_NAMES} are supported")


def _name(payload: bytes) -> str:
    if len(payload) > MOST_NAME:
        raise MalformedError(f"a resource's name has {len(payload)} bytes; {MOST_NAME} are supported")
    return string(payload)


def _word(payload: bytes) -> str:
    if len(payload) > MOST_WORD:
        raise MalformedError(f"a field has {len(payload)} bytes; {MOST_WORD} are supported")
    return string(payload)
