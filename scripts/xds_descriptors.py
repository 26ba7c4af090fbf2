"""Derive the protobuf descriptors that `xds` loads from the message classes of envoy-data-plane.

Run by `make golden`. The output, `xds/resources/descriptors.binpb`, is a FileDescriptorSet with one file per protobuf
package. It contains the messages in `MESSAGES` under their real names and numbers. A field whose own message is not
listed is left out, so protobuf keeps it as unknown bytes: input from the network is only decoded as far as it is read.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

TARGET = Path(__file__).parent.parent / "xds" / "resources" / "descriptors.binpb"
MESSAGES = {
    "envoy.config.accesslog.v3": (
        "AccessLogFilter",
        "AndFilter",
        "ComparisonFilter",
        "HeaderFilter",
        "OrFilter",
        "ResponseFlagFilter",
        "StatusCodeFilter",
    ),
    "envoy.config.cluster.v3": (
        "CircuitBreakers",
        "CircuitBreakers.Thresholds",
        "Cluster",
        "Cluster.EdsClusterConfig",
        "Cluster.TransportSocketMatch",
        "UpstreamConnectionOptions",
    ),
    "envoy.config.core.v3": (
        "Address",
        "AggregatedConfigSource",
        "BackoffStrategy",
        "CidrRange",
        "ConfigSource",
        "DataSource",
        "EnvoyInternalAddress",
        "HeaderValue",
        "HeaderValueOption",
        "Http1ProtocolOptions",
        "Http1ProtocolOptions.HeaderKeyFormat",
        "Http2ProtocolOptions",
        "HttpProtocolOptions",
        "Metadata",
        "Node",
        "ProxyProtocolConfig",
        "RuntimeUInt32",
        "SocketAddress",
        "SubstitutionFormatString",
        "TcpKeepalive",
        "TransportSocket",
        "TypedExtensionConfig",
    ),
    "envoy.config.endpoint.v3": ("ClusterLoadAssignment", "Endpoint", "LbEndpoint", "LocalityLbEndpoints"),
    "envoy.config.listener.v3": (
        "Filter",
        "FilterChain",
        "FilterChainMatch",
        "Listener",
        "Listener.InternalListenerConfig",
        "ListenerFilter",
    ),
    "envoy.config.route.v3": (
        "DirectResponseAction",
        "HeaderMatcher",
        "RetryPolicy",
        "RetryPolicy.RetryBackOff",
        "Route",
        "RouteAction",
        "RouteConfiguration",
        "RouteMatch",
        "VirtualHost",
    ),
    "envoy.extensions.filters.common.set_filter_state.v3": ("FilterStateValue",),
    "envoy.extensions.filters.http.health_check.v3": ("HealthCheck",),
    "envoy.extensions.filters.http.router.v3": ("Router",),
    "envoy.extensions.filters.http.set_filter_state.v3": ("Config",),
    "envoy.extensions.filters.listener.proxy_protocol.v3": ("ProxyProtocol",),
    "envoy.extensions.filters.listener.tls_inspector.v3": ("TlsInspector",),
    "envoy.extensions.filters.network.http_connection_manager.v3": (
        "HttpConnectionManager",
        "HttpConnectionManager.UpgradeConfig",
        "HttpFilter",
        "LocalReplyConfig",
        "Rds",
        "ResponseMapper",
    ),
    "envoy.extensions.filters.network.set_filter_state.v3": ("Config",),
    "envoy.extensions.filters.network.tcp_proxy.v3": ("TcpProxy",),
    "envoy.extensions.http.header_formatters.preserve_case.v3": ("PreserveCaseFormatterConfig",),
    "envoy.extensions.transport_sockets.proxy_protocol.v3": ("ProxyProtocolUpstreamTransport",),
    "envoy.extensions.transport_sockets.raw_buffer.v3": ("RawBuffer",),
    "envoy.extensions.upstreams.http.v3": (
        "HttpProtocolOptions",
        "HttpProtocolOptions.ExplicitHttpConfig",
        "HttpProtocolOptions.UseDownstreamHttpConfig",
    ),
    "envoy.service.discovery.v3": (
        "DeltaDiscoveryRequest",
        "DeltaDiscoveryResponse",
        "DiscoveryRequest",
        "DiscoveryResponse",
        "Resource",
    ),
    "envoy.type.matcher.v3": ("AddressMatcher", "FilterStateMatcher", "RegexMatcher", "StringMatcher"),
    "google.protobuf": ("Any", "Duration", "Struct", "Value"),
    "google.protobuf wrappers": ("BoolValue", "UInt32Value"),
    "google.rpc": ("Status",),
    "xds.core.v3": ("CidrRange",),
}
"""By protobuf package, the messages that `xds` builds or reads. The wrappers are in a file of their own, because
protobuf's JSON conversion recognizes them by its name."""
ANY_BYTES = {("google.rpc.Status", "message")}
"""String fields that a peer fills with quoted text. As bytes they are accepted when they are not UTF-8."""


def descriptor_set() -> bytes:
    """Return the serialized FileDescriptorSet."""
    files = _Schema().files
    ordered = FileDescriptorSet()

    def add(key: str) -> None:
        if (file := files.pop(key, None)) is None:
            return
        for imported in sorted({_file(name) for name in _types_used(file)} - {key}):
            add(imported)
            file.dependency.append(_file_name(imported))
        ordered.file.append(file)

    for key in MESSAGES:
        add(key)
    return bytes(ordered.SerializeToString(deterministic=True))


class _Schema:
    """The listed message classes as descriptors: one file per package, without its dependencies."""

    def __init__(self) -> None:
        self.files = {
            key: FileDescriptorProto(name=_file_name(key), package=_package(key), syntax="proto3") for key in MESSAGES
        }
        self._messages = _message_classes()
        """The real name of each message class of envoy-data-plane, listed or not."""
        self._listed = {f"{_package(key)}.{name}" for key, names in MESSAGES.items() for name in names}
        missing = self._listed - set(self._messages.values())
        assert not missing, f"not in envoy-data-plane: {sorted(missing)}"
        for python, name in sorted(self._messages.items(), key=lambda item: item[1]):
            if name in self._listed:
                self._add_message(python, name)
        for file in self.files.values():
            for message in _messages(file):
                _put_real_oneofs_first(message)

    def _add_message(self, python: type, name: str) -> None:
        message = self._message(name)
        hints = typing.get_type_hints(python)
        for declared in dataclasses.fields(typing.cast(Any, python)):
            meta, hint = declared.metadata["betterproto"], _without_optional(hints[declared.name])
            field = FieldDescriptorProto(name=declared.name.rstrip("_"), number=meta.number)
            if meta.map_meta:
                is_included = self._set_map_type(field, message, name, meta, hint)
            else:
                is_included = self._set_type(field, meta.proto_type, meta.unwrap() if meta.unwrap else hint)
            if not is_included:
                continue
            field.label = field.LABEL_REPEATED if meta.repeated or meta.map_meta else field.LABEL_OPTIONAL
            if (name, field.name) in ANY_BYTES:
                field.type = field.TYPE_BYTES
            if meta.group:
                field.oneof_index = _oneof(message, meta.group)
            elif meta.optional and field.type != field.TYPE_MESSAGE:
                field.proto3_optional = True
                field.oneof_index = _oneof(message, f"_{field.name}")
            message.field.append(field)

    def _set_map_type(
        self, field: FieldDescriptorProto, message: DescriptorProto, name: str, meta: Any, hint: Any
    ) -> bool:
        entry = DescriptorProto(name="".join(word.capitalize() for word in field.name.split("_")) + "Entry")
        entry.options.map_entry = True
        for part, half, python in zip(("key", "value"), meta.map_meta, typing.get_args(hint), strict=True):
            declared = entry.field.add(name=part, number=half.number, label=FieldDescriptorProto.LABEL_OPTIONAL)
            if not self._set_type(declared, half.proto_type, python):
                return False
        field.type, field.type_name = field.TYPE_MESSAGE, f".{name}.{entry.name}"
        message.nested_type.append(entry)
        return True

    def _set_type(self, field: FieldDescriptorProto, kind: str, python: Any) -> bool:
        """Set a field's type; return whether that type is in the set."""
        if kind == "message":
            name = self._messages.get(python, "")
            field.type, field.type_name = field.TYPE_MESSAGE, f".{name}"
            return name in self._listed
        if kind == "enum":
            field.type, field.type_name = field.TYPE_ENUM, f".{self._enum(python)}"
        else:
            field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
        return True

    def _message(self, name: str) -> DescriptorProto:
        """Return the message of this name, added with its parents when it is not there yet."""
        file = self.files[_file(name)]
        scope, found = file.message_type, None
        for part in name.removeprefix(f"{file.package}.").split("."):
            found = next((one for one in scope if one.name == part), None) or scope.add(name=part)
            scope = found.nested_type
        assert found is not None
        return found

    def _enum(self, python: Any) -> str:
        """Return the real name of an enum class, which is added when it is not there yet.

        The class of an enum within a message has the message's name before its own.
        """
        package = python.__module__.removeprefix("envoy_data_plane.")
        around = [one for one in self._messages if one.__module__ == python.__module__]
        parents = [one for one in around if python.__name__.startswith(one.__name__) and one is not python]
        parent = max(parents, key=lambda one: len(one.__name__), default=None)
        short = python.__name__.removeprefix(parent.__name__) if parent else python.__name__
        full = f"{self._messages[parent] if parent else package}.{short}"
        scope = self._message(self._messages[parent]).enum_type if parent else self.files[package].enum_type
        if not any(enum.name == short for enum in scope):
            renamed: dict[int, str] = getattr(python, "betterproto_value_to_renamed_proto_names", dict)()
            enum = scope.add(name=short)
            for value in python:
                enum.value.add(name=renamed.get(value.value, value.name), number=value.value)
        return full


def _message_classes() -> dict[type, str]:
    with warnings.catch_warnings():
        # envoy_data_plane is generated for an older pydantic, which warns on import.
        warnings.simplefilter("ignore", DeprecationWarning)
        modules = [importlib.import_module(f"envoy_data_plane.{_package(key)}") for key in MESSAGES]
    pool = modules[0].default_message_pool.url_to_type
    return {python: url.rpartition("/")[2] for url, python in pool.items()}


def _without_optional(hint: Any) -> Any:
    """Return the class in `X | None` and `list[X]`."""
    while typing.get_origin(hint) in (typing.Union, UnionType, list):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    return hint


def _package(key: str) -> str:
    return key.partition(" ")[0]


def _file(name: str) -> str:
    """Return the key of the file that contains a message or enum."""
    package = max((key for key in MESSAGES if name.startswith(f"{key}.")), key=len)
    outermost = name.removeprefix(f"{package}.").partition(".")[0]
    return next((key for key, names in MESSAGES.items() if _package(key) == package and outermost in names), package)


def _file_name(key: str) -> str:
    package, _, name = key.partition(" ")
    return f"{package.replace('.', '/')}/{name or 'zenvoy'}.proto"


def _messages(scope: Any) -> Iterator[DescriptorProto]:
    """Yield the messages of a file or message, and those within them."""
    for message in scope.message_type if isinstance(scope, FileDescriptorProto) else scope.nested_type:
        yield message
        yield from _messages(message)


def _types_used(file: FileDescriptorProto) -> Iterator[str]:
    for message in _messages(file):
        yield from (field.type_name.removeprefix(".") for field in message.field if field.type_name)


def _oneof(message: DescriptorProto, name: str) -> int:
    known = [oneof.name for oneof in message.oneof_decl]
    if name not in known:
        message.oneof_decl.add(name=name)
        known.append(name)
    return known.index(name)


def _put_real_oneofs_first(message: DescriptorProto) -> None:
    """Order the oneofs as protobuf demands: those of `optional` fields come last."""
    before = [oneof.name for oneof in message.oneof_decl]
    after = sorted(before, key=lambda name: name.startswith("_"))
    for oneof, name in zip(message.oneof_decl, after, strict=True):
        oneof.name = name
    for field in message.field:
        if field.HasField("oneof_index"):
            field.oneof_index = after.index(before[field.oneof_index])


if __name__ == "__main__":
    TARGET.write_bytes(descriptor_set())
