"""Which zenvoy a command is for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.cli.context import Surroundings, Typed, in_cluster

NOTHING = Surroundings(plugin=False, state_dir_typed=False, control=False, directory=False, kubeconfig=False)
A_CLUSTER = replace(NOTHING, kubeconfig=True)
RUNNING = replace(A_CLUSTER, control=True, directory=True)
STOPPED = replace(A_CLUSTER, directory=True)
PLUGIN = replace(RUNNING, plugin=True)
DIRECTORY = Path("state")


@pytest.mark.parametrize(
    "typed", [Typed("shop"), Typed(everywhere=True), Typed(context="prod"), Typed(kubeconfig=Path("k"))]
)
@pytest.mark.parametrize("around", [NOTHING, A_CLUSTER, RUNNING, STOPPED, PLUGIN])
def test_a_cluster_that_is_typed_is_meant(typed: Typed, around: Surroundings) -> None:
    assert in_cluster(typed, around)
    assert in_cluster(replace(typed, state_dir=DIRECTORY), around), "which is from the environment"


@pytest.mark.parametrize("around", [NOTHING, A_CLUSTER, RUNNING, STOPPED, PLUGIN])
def test_a_state_directory_that_is_given_is_meant(around: Surroundings) -> None:
    assert not in_cluster(Typed(state_dir=DIRECTORY), around)
    assert not in_cluster(Typed(state_dir=DIRECTORY), replace(around, state_dir_typed=True))


def test_both_cannot_be_typed() -> None:
    with pytest.raises(ValueError, match="--state-dir"):
        in_cluster(Typed("shop", state_dir=DIRECTORY), replace(A_CLUSTER, state_dir_typed=True))


@pytest.mark.parametrize(
    ("around", "cluster"), [(NOTHING, False), (A_CLUSTER, True), (RUNNING, False), (STOPPED, False), (PLUGIN, True)]
)
def test_when_nothing_is_typed_it_is_what_there_is(around: Surroundings, cluster: bool) -> None:
    assert in_cluster(Typed(), around) is cluster
    assert in_cluster(Typed(controller="http://127.0.0.1:18080"), around) is (cluster or around == NOTHING)


@pytest.mark.parametrize("around", [NOTHING, A_CLUSTER, RUNNING, STOPPED, PLUGIN])
def test_a_name_with_a_namespace_is_of_a_cluster(around: Surroundings) -> None:
    assert in_cluster(Typed(), around, "shop/web")
    assert not in_cluster(Typed(state_dir=DIRECTORY), around, "shop/web")
