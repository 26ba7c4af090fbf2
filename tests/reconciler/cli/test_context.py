"""The zenvoy that a command addresses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from reconciler.cli import context
from reconciler.cluster_client.context_options import STATE_DIR, STATE_DIR_VARIABLE, ContextOptions

Environment = dict[str, bool]
NOTHING = {"plugin": False, "state_dir_typed": False, "directory": False, "kubeconfig": False}
A_CLUSTER = NOTHING | {"kubeconfig": True}
A_STATE_DIR = A_CLUSTER | {"directory": True}
PLUGIN = A_STATE_DIR | {"plugin": True}
DIRECTORY = Path("state")
Selects = Callable[..., bool]


@pytest.fixture
def selects_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Selects:
    """Return `addresses_cluster`, called in an environment."""

    def called(
        selection: ContextOptions,
        name: str | None,
        *,
        plugin: bool,
        state_dir_typed: bool,
        directory: bool,
        kubeconfig: bool,
    ) -> bool:
        config = tmp_path / "config"
        config.unlink(missing_ok=True)
        if kubeconfig:
            config.touch()
        if directory:
            (tmp_path / STATE_DIR).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(context, "_SERVICE_ACCOUNT_TOKEN", tmp_path / "token")
        monkeypatch.setattr(sys, "argv", ["kubectl-zenvoy" if plugin else "zenvoy"])
        monkeypatch.setenv("KUBECONFIG", str(config))
        monkeypatch.setenv(STATE_DIR_VARIABLE, "" if state_dir_typed else str(DIRECTORY))
        return context.addresses_cluster(selection, name)

    return called


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
def test_context_cluster_option_selects_cluster(
    selects_cluster: Selects, selection: ContextOptions, environment: Environment
) -> None:
    assert selects_cluster(selection, None, **environment)
    assert selects_cluster(replace(selection, state_dir=DIRECTORY), None, **environment), (
        "which is from the environment"
    )


@pytest.mark.parametrize("environment", [NOTHING, A_CLUSTER, A_STATE_DIR, PLUGIN])
def test_context_state_dir_selects_this_machine(selects_cluster: Selects, environment: Environment) -> None:
    assert not selects_cluster(ContextOptions(state_dir=DIRECTORY), None, **environment)
    assert not selects_cluster(ContextOptions(state_dir=DIRECTORY), None, **environment | {"state_dir_typed": True})


def test_context_options_for_both_are_rejected(selects_cluster: Selects, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        selects_cluster(ContextOptions("shop", state_dir=DIRECTORY), None, **A_CLUSTER | {"state_dir_typed": True})
    assert ended.value.exit_code == 2
    assert "--state-dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [(NOTHING, False), (A_CLUSTER, True), (A_STATE_DIR, False), (PLUGIN, True)],
)
def test_context_without_options_follows_environment(
    selects_cluster: Selects, environment: Environment, cluster: bool
) -> None:
    assert selects_cluster(ContextOptions(), None, **environment) is cluster
    assert selects_cluster(ContextOptions(controller="http://127.0.0.1:18080"), None, **environment) is (
        cluster or environment == NOTHING
    )


@pytest.mark.parametrize("environment", [NOTHING, A_CLUSTER, A_STATE_DIR, PLUGIN])
def test_context_name_with_namespace_selects_cluster(selects_cluster: Selects, environment: Environment) -> None:
    assert selects_cluster(ContextOptions(), "shop/web", **environment)
    assert not selects_cluster(ContextOptions(state_dir=DIRECTORY), "shop/web", **environment)
