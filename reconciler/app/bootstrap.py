"""An Envoy bootstrap from what a person types."""

from __future__ import annotations

from typing import Literal

from xds.bootstrap import Join, as_json, as_yaml


def text(reconciler: str, node: str, admin: str, mode: Literal["delta", "sotw"], as_json_text: bool) -> str:
    """The bootstrap as YAML or JSON. Raises `ValueError` when an address is none."""
    join = Join(node, *_target(reconciler), admin=admin, mode=mode)
    return as_json(join) if as_json_text else as_yaml(join)


def _target(text: str) -> tuple[str, int]:
    if text.startswith("unix:"):
        return text, 0
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"reconciler {text!r}: write it as host:port, for instance 127.0.0.1:18000")
    return host, int(port)
