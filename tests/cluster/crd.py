"""The CRD of the chart, applied as strictly as an API server can check."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import api_path, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL

APPLY_PATCH = "application/apply-patch+yaml"
FILE = Path(__file__).parents[2] / "deploy/chart/crds/scaledservices.yaml"
DEFINITION_SECONDS = 240.0
"""Time in which the API server must serve a new definition."""


def manifest() -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return whole


async def install(api: Api) -> None:
    """Install the definition, and wait until ScaledServices can be created."""
    crd = manifest()
    where = path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=crd["metadata"]["name"])
    query = {"fieldManager": "tests", "force": "true", "fieldValidation": "Strict"}
    await api.call("PATCH", where, crd, APPLY_PATCH, query)
    async with asyncio.timeout(DEFINITION_SECONDS):
        while not is_established(json.loads(await api.get(where))) or not await _served(api):
            await asyncio.sleep(0.05)


def is_established(crd: Mapping[str, Any]) -> bool:
    """Return whether a definition is in force."""
    conditions = crd.get("status", {}).get("conditions") or []  # none yet is null
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def has_idle_after(scaled_service: Mapping[str, Any], idle_after: str) -> bool:
    """Return whether the leader has observed this `idleAfter`, which its Service may have before."""
    observed = scaled_service.get("status", {}).get("observedGeneration")
    wanted = (idle_after, scaled_service["metadata"]["generation"])
    return (scaled_service["spec"].get("idleAfter"), observed) == wanted


async def _served(api: Api) -> bool:
    """Return whether ScaledServices are served, and known to clients that ask for kinds or schemas, as kubectl does."""
    try:
        await api.get(path(API_VERSION, PLURAL))
        kinds, schemas = await api.get(api_path(API_VERSION)), await api.get("/openapi/v3")
    except ApiError:
        return False
    listed = {one["name"] for one in json.loads(kinds)["resources"]}
    return PLURAL in listed and f"apis/{API_VERSION}" in json.loads(schemas)["paths"]
