"""The permissions that `zenvoy doctor` checks, and those that the chart grants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconciler.doctor.permissions import PERMISSIONS, SECRET_VERBS, WATCH, Permission
from tests.deploy.containers import documents

ROLES = {
    one["metadata"]["name"]: one["rules"]
    for one in documents((Path(__file__).parents[3] / "deploy" / "install.yaml").read_text())
    if one["kind"] in ("ClusterRole", "Role")
}
BY_SETTINGS = {
    *(Permission(verb, "", "namespaces") for verb in WATCH),
    *(
        Permission(verb, "", "secrets", own=True, name=name)
        for verb in SECRET_VERBS
        for name in ("zenvoy-self-issued-ca", "zenvoy-proxy-self-issued")
    ),
}
"""Checked if the arguments of the controller make it use them."""
OF_THE_HOOK = Permission("get", "", "services", own=True, name="zenvoy-reconciler")
"""Used by the uninstall hook, and not by the controller."""


def granted(rules: list[dict[str, Any]], own: bool) -> Iterator[Permission]:
    for rule in rules:
        for name in rule.get("resourceNames", [""]):
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield Permission(verb, group, resource, own, name)


def test_permissions_checked_are_those_of_the_chart() -> None:
    rules = {*granted(ROLES["zenvoy-reconciler"], False), *granted(ROLES["zenvoy-reconciler-own"], True)}
    of_targets = {one for one in rules if one.group == "apps"}
    assert rules - of_targets == {*PERMISSIONS, *BY_SETTINGS, OF_THE_HOOK}
