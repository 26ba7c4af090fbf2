"""ScaledServices and Services for tests, written as people write them: YAML."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import decoder
from reconciler.kubernetes.types.scaled_service import ScaledService

WEB = "ports: [{name: http, port: 80, targetPort: 8080}]"


def scaled(spec: str = "", name: str = "web", namespace: str = "shop", created: int = 0, **meta: Any) -> ScaledService:
    """`spec` is YAML; `created` are seconds of a certain minute."""
    said = {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", "generation": 1, **meta}
    said["creationTimestamp"] = f"2026-11-23T10:00:{created:02}Z"
    return decoder(ScaledService)(msgspec.json.encode({"metadata": said, "spec": yaml.safe_load(spec) or {}}))


def service(spec: str = WEB, name: str = "web", namespace: str = "shop", **meta: Any) -> Service:
    """With a selector, unless `spec` says otherwise."""
    said = {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}", **meta}
    whole = {"selector": {"app": name}, **(yaml.safe_load(spec) or {})}
    return decoder(Service)(msgspec.json.encode({"metadata": said, "spec": whole}))
