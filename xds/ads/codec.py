"""The discovery messages: decoding of requests, within bounds, and encoding of responses around encoded resources.

Protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from xds.names import ORDER
from xds.resources import proto
from xds.resources.snapshot import Resource

MAX_NAMES = 20_000
"""Resources of one type: twice the supported number of services, because services may be replaced."""
MAX_NAME_BYTES = 400
"""A resource's name; the longest name of a service (namespace, name and a suffix) is shorter."""
MAX_WORD_BYTES = 256
"""A node id, a cluster, a version, a nonce, a type URL."""
MAX_ERROR_BYTES = 4096
"""The part of a rejection's text that is kept."""
_QUOTES, _QUOTED = b"goo.gle/debug", b"Proto constraint validation failed"
"""Between these, Envoy quotes a resource that violates a constraint of its fields."""
_CUT = b"the error is not known, because Envoy cuts long messages"


class MalformedError(ValueError):
    """A request that is not valid protobuf, or that exceeds a bound."""


@dataclass(frozen=True, slots=True)
class NodeId:
    """The sender of a request, as Envoy's bootstrap describes its node."""

    id: str
    cluster: str
    stats: str = ""
    """`ip:port` of its statistics; empty if it names none."""


@dataclass(slots=True)
class DeltaRequest:
    """One DeltaDiscoveryRequest."""

    type_url: str = ""
    nonce: str = ""
    node: NodeId | None = None
    error: str | None = None
    """Envoy's message if it rejects the response with this nonce; None if it accepts it."""
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


def claimed_node_id(kind: Any, data: bytes) -> str:
    """Return the node id in an encoded request of a message class; empty if it has none. Raises `MalformedError`."""
    return _word(_decode(kind, data).node.id)


def delta_request(data: bytes) -> DeltaRequest:
    """Decode a DeltaDiscoveryRequest. Raises `MalformedError`."""
    message = _decode(proto.DeltaDiscoveryRequest, data)
    versions: Mapping[str, str] = message.initial_resource_versions
    return DeltaRequest(
        type_url=_word(message.type_url),
        nonce=_word(message.response_nonce),
        node=_node(message),
        error=_error(message),
        subscribe=_names(message.resource_names_subscribe),
        unsubscribe=_names(message.resource_names_unsubscribe),
        initial_versions=dict(zip(_names(versions), map(_word, versions.values()), strict=True)),
    )


class SotwDecoder:
    """Decodes the DiscoveryRequests of one stream.

    Every acknowledgement repeats all names. When they equal those of the previous request of the same type, they are
    not converted again, and `SotwRequest.names` is the same object.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Any, tuple[str, ...]]] = {}
        """By type URL, the previous request without what differs between acknowledgements, and the names in it."""

    def decode(self, data: bytes) -> SotwRequest:
        """Decode a DiscoveryRequest. Raises `MalformedError`."""
        message = _decode(proto.DiscoveryRequest, data)
        request = SotwRequest(
            type_url=_word(message.type_url),
            nonce=_word(message.response_nonce),
            node=_node(message),
            error=_error(message),
            version=_word(message.version_info),
        )
        for field_name in ("response_nonce", "node", "error_detail", "version_info"):
            message.ClearField(field_name)
        last, names = self._last.get(request.type_url, (None, ()))
        # Protobuf compares messages much faster than it converts their names.
        request.names = names if message == last else tuple(_names(message.resource_names))
        if request.type_url in ORDER:
            self._last[request.type_url] = message, request.names
        return request


def delta_response(
    type_url: str, version: str, nonce: str, resources: Iterable[Resource], removed: Iterable[str]
) -> bytes:
    """Encode a DeltaDiscoveryResponse; `version` is for people, each resource has its own."""
    response = proto.DeltaDiscoveryResponse(
        type_url=type_url, system_version_info=version, nonce=nonce, removed_resources=removed
    )
    for resource in resources:
        added = response.resources.add(name=resource.name, version=resource.version)
        added.resource.type_url, added.resource.value = type_url, resource.body
    return proto.encode(response)


def sotw_response(type_url: str, version: str, nonce: str, resources: Iterable[Resource]) -> bytes:
    """Encode a DiscoveryResponse."""
    response = proto.DiscoveryResponse(type_url=type_url, version_info=version, nonce=nonce)
    for resource in resources:
        response.resources.add(type_url=type_url, value=resource.body)
    return proto.encode(response)


def _decode(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedError(f"not a valid {kind.DESCRIPTOR.name}: {error}") from error


def _node(message: Any) -> NodeId | None:
    if not message.HasField("node"):
        return None
    node = message.node
    ours = node.metadata.fields["zenvoy"].struct_value
    return NodeId(_word(node.id), _word(node.cluster), _word(ours.fields["stats"].string_value))


def _error(message: Any) -> str | None:
    if not message.HasField("error_detail"):
        return None
    text: bytes = message.error_detail.message
    begin, end = text.find(_QUOTES), text.rfind(_QUOTED)
    if begin >= 0:  # the quoted resource contains other tenants' settings, and a long one cuts the error off
        rule = text[end:] if end > begin else b""
        text = text[:begin] + (rule if rule and b"}" not in rule else _CUT)  # a brace: a setting has these words
    decoded = text[:MAX_ERROR_BYTES].decode(errors="replace")
    return "".join(char if char.isprintable() else " " for char in decoded)


def _names(encoded: Collection[str]) -> list[str]:
    """Return the names of resources. Their number is checked before they are converted."""
    if (count := len(encoded)) > MAX_NAMES:
        raise MalformedError(f"{count} resources in a request; at most {MAX_NAMES} are supported")
    names = list(encoded)
    for name in names:
        if len(name) > MAX_NAME_BYTES // 4 and (size := len(name.encode())) > MAX_NAME_BYTES:
            raise MalformedError(f"a resource name of {size} bytes; at most {MAX_NAME_BYTES} are supported")
    return names


def _word(value: str) -> str:
    if (size := len(value.encode())) > MAX_WORD_BYTES:
        raise MalformedError(f"a field of {size} bytes; at most {MAX_WORD_BYTES} are supported")
    return value
