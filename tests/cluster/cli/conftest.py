"""Fixtures: a namespace with ScaledServices, the command, and a stand-in for the controller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.kubernetes.client.api import Api
from tests.cluster import crd
from tests.cluster.cli.parts import Cli, FakeController, Objects
from tests.cluster.harness import Cluster


@pytest.fixture
async def definition(api: Api) -> None:
    """Install the definition of ScaledServices."""
    await crd.install(api)


@pytest.fixture
def objects(definition: None, api: Api, namespace: str) -> Objects:
    return Objects(api, namespace)


@pytest.fixture
def cli(control_plane: Cluster, namespace: str, tmp_path: Path) -> Cli:
    return Cli(control_plane.kubeconfig, namespace, tmp_path)


@pytest.fixture
def controller() -> Iterator[FakeController]:
    found = FakeController()
    end = found.start()
    yield found
    end()
