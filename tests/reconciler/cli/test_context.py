"""The zenvoy that a command addresses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.cli.context import selects_cluster
from reconciler.cluster_client.context_options import ContextOptions

Environment = dict[str, bool]
NOTHING = {"plugin": False, "state_dir_typed": False, "directory": False, "kubeconfig": False}
A_CLUSTER = NOTHING | {"kubeconfig": True}
A_STATE_DIR = A_CLUSTER | {"directory": True}
PLUGIN = A_STATE_DIR | {"plugin": True}
DIRECTORY = Path("state")


@pytest.mark.parametrize(
    "selection",
    [
        ContextOptions("shop"),
        ContextOptions(everywhere=True),
        ContextOptions(context="prod"),
        ContextOptions(kubeconfig=Path("k")),
    ],
)
@pytest.mark.parametrize("environment", [NOTHING, A_CLUSTER, A_STATE_DIR, PLUGIN])
def test_context_cluster_option_selects_cluster(selection: ContextOptions, environment: Environment) -> None:
    assert selects_cluster(selection, None, **environment)
    assert selects_cluster(replace(selection, state_dir=DIRECTORY), None, **environment), (
        "which is from the environment"
    )


@pytest.mark.parametrize("environment", [NOTHING, A_CLUSTER, A_STATE_DIR, PLUGIN])
def test_context_state_dir_selects_this_machine(environment: Environment) -> None:
    assert not selects_cluster(ContextOptions(state_dir=DIRECTORY), None, **environment)
    assert not selects_cluster(ContextOptions(state_dir=DIRECTORY), None, **environment | {"state_dir_typed": True})


def test_context_options_for_both_are_rejected() -> None:
    with pytest.raises(ValueError, match="--state-dir"):
        selects_cluster(ContextOptions("shop", state_dir=DIRECTORY), None, **A_CLUSTER | {"state_dir_typed": True})


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [(NOTHING, False), (A_CLUSTER, True), (A_STATE_DIR, False), (PLUGIN, True)],
)
def test_context_without_options_follows_environment(environment: Environment, cluster: bool) -> None:
    assert selects_cluster(ContextOptions(), None, **environment) is cluster
    assert selects_cluster(ContextOptions(controller="http://127.0.0.1:18080"), None, **environment) is (
        cluster or environment == NOTHING
    )


@pytest.mark.parametrize("environment", [NOTHING, A_CLUSTER, A_STATE_DIR, PLUGIN])
def test_context_name_with_namespace_selects_cluster(environment: Environment) -> None:
    assert selects_cluster(ContextOptions(), "shop/web", **environment)
    assert not selects_cluster(ContextOptions(state_dir=DIRECTORY), "shop/web", **environment)
