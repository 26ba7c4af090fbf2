"""The protobuf message classes of Envoy's API that zenvoy builds and reads.

Protobuf makes them from `descriptors.binpb`, which `scripts/xds_descriptors.py` derives from envoy-data-plane. They are
in a descriptor pool of their own, so that they cannot collide with another package's classes of the same names.

Encoded messages of one type may be concatenated: protobuf decodes the result as their merge, in which repeated fields
append. So what many services share is encoded once, and a resource with 10,000 parts is joined from encoded parts.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any as AnyMessage

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_DESCRIPTORS = Path(__file__).with_name("descriptors.binpb")
POOL = descriptor_pool.DescriptorPool()
"""For libraries that look up the messages within `google.protobuf.Any` by name."""
for _file in descriptor_pb2.FileDescriptorSet.FromString(_DESCRIPTORS.read_bytes()).file:
    POOL.AddSerializedFile(_file.SerializeToString())


@cache
def message_class(name: str) -> AnyMessage:
    """Return the class of the message with this full name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


Any = message_class("google.protobuf.Any")
Struct = message_class("google.protobuf.Struct")

Metadata = message_class("envoy.config.core.v3.Metadata")

Cluster = message_class("envoy.config.cluster.v3.Cluster")
ClusterLoadAssignment = message_class("envoy.config.endpoint.v3.ClusterLoadAssignment")
UpstreamHttpOptions = message_class("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
ProxyProtocolTransport = message_class(
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
)
PreserveCase = message_class("envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig")
RawBuffer = message_class("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")

Listener = message_class("envoy.config.listener.v3.Listener")
HttpConnectionManager = message_class(
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
TcpProxy = message_class("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy")

RouteConfiguration = message_class("envoy.config.route.v3.RouteConfiguration")
Route = message_class("envoy.config.route.v3.Route")

DeltaDiscoveryRequest = message_class("envoy.service.discovery.v3.DeltaDiscoveryRequest")
DeltaDiscoveryResponse = message_class("envoy.service.discovery.v3.DeltaDiscoveryResponse")
DiscoveryRequest = message_class("envoy.service.discovery.v3.DiscoveryRequest")
DiscoveryResponse = message_class("envoy.service.discovery.v3.DiscoveryResponse")


def encode(message: AnyMessage) -> bytes:
    """Encode a message; equal messages give equal bytes."""
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


def packed(message: AnyMessage) -> AnyMessage:
    """Return a message as a `google.protobuf.Any`."""
    return Any(type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}", value=encode(message))


def extension(name: str, message: AnyMessage) -> dict[str, AnyMessage]:
    """Return the configuration of one of Envoy's extensions."""
    return {"name": name, "typed_config": packed(message)}
