"""The CRD of the chart, applied as strictly as an API server can check."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import yaml

from reconciler.kubernetes.client.api import APPLY_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL

FILE = Path(__file__).parents[2] / "deploy/chart/crds/scaledservices.yaml"


def manifest() -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return whole


async def install(api: Api) -> None:
    """Install the definition, and wait until ScaledServices can be created."""
    crd = manifest()
    where = path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=crd["metadata"]["name"])
    query = {"fieldManager": "tests", "force": "true", "fieldValidation": "Strict"}
    await api.patch(where, crd, APPLY_PATCH, query)
    async with asyncio.timeout(30):
        while not _established(json.loads(await api.get(where))) or not await _served(api):
            await asyncio.sleep(0.05)


def _established(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []  # none yet is null
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


async def _served(api: Api) -> bool:
    try:
        await api.get(path(API_VERSION, PLURAL))
    except ApiError:
        return False
    return True
