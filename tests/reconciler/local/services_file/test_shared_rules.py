"""The services file and annotations have the same rules: one mistake has the same message in both."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.kubernetes.config.annotations import parse_annotations
from reconciler.kubernetes.config.resolve import ClusterConfig
from reconciler.local.services_file import read
from tests.reconciler.kubernetes.objects import service

CASES = [
    ("idleAfter: soon", {"idle-after": "soon"}),
    ("wakeTimeout: 5", {"wake-timeout": "5"}),
    ("holdTimeout: 0s", {"hold-timeout": "0s"}),
    ("drainTimeout: 90000h", {"drain-timeout": "90000h"}),
    ("protocol: gopher", {"protocol": "gopher"}),
    ("protocol: gRPC", {"protocol": "gRPC"}),
    ("idle: {by: packets}", {"idle-by": "packets"}),
    ("wake: {by: packets}", {"wake-by": "packets"}),
    ("protocol: http, wake: {by: bytes}", {"protocol": "http", "wake-by": "bytes"}),
    ("protocol: http, idle: {by: connections}", {"protocol": "http", "idle-by": "connections"}),
    ("hosts: [a_b.example]", {"hosts": "a_b.example"}),
    ("ignore: [{paths: [healthz]}]", {"ignore-paths": "healthz"}),
    ("ignore: [{sources: [10.0.0]}]", {"ignore-sources": "10.0.0"}),
    ("ignore: [{sources: [fe80::1%eth0]}]", {"ignore-sources": "fe80::1%eth0"}),
]


@pytest.mark.parametrize(("fields", "annotations"), CASES, ids=[fields for fields, _ in CASES])
def test_mistake_has_the_same_message_in_file_and_annotation(
    fields: str, annotations: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(
        f"listen: {{http: 127.0.0.1:10000}}\nservices:\n- {{name: web, command: [sleep, '1'], port: 8080, {fields}}}\n"
    )
    found = read(path)
    assert isinstance(found, list)
    of = service(annotations={f"zenvoy.dev/{key}": value for key, value in annotations.items()})
    (in_annotation,) = parse_annotations(of, ClusterConfig())[1]
    assert [problem.what for problem in found] == [f"{in_annotation.message}; {in_annotation.remedy}"]
