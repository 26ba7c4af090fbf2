"""The committed descriptor set is what its generator derives from envoy-data-plane."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from xds.resources.proto import message_class

ROOT = Path(__file__).parent.parent.parent
SPEC = importlib.util.spec_from_file_location("xds_descriptors", ROOT / "scripts" / "xds_descriptors.py")
assert SPEC and SPEC.loader
generator = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(generator)


def test_descriptors_committed_equal_envoy_data_plane() -> None:
    """To update: `make golden`."""
    derived = generator.descriptor_set()
    got, expected = FileDescriptorSet.FromString(generator.TARGET.read_bytes()), FileDescriptorSet.FromString(derived)
    assert got == expected
    assert generator.TARGET.read_bytes() == derived


def test_descriptors_keep_real_names_and_numbers() -> None:
    cluster = message_class("envoy.config.cluster.v3.Cluster").DESCRIPTOR
    assert cluster.nested_types_by_name["TransportSocketMatch"].full_name == f"{cluster.full_name}.TransportSocketMatch"
    assert cluster.enum_types_by_name["DiscoveryType"].values_by_name["EDS"].number == 3
    assert cluster.fields_by_name["alt_stat_name"].number == 28
    assert cluster.oneofs_by_name["cluster_discovery_type"].fields[0].name == "type"
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    assert message_class(manager).DESCRIPTOR.fields_by_name["rds"].message_type.name == "Rds"
