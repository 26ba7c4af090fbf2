"""The containers in manifests, and whether the commands that they run know the options that they are given."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer
import yaml

APPS = {"zenvoy": "reconciler.cli.main", "zenvoy-tproxy": "tproxy.cli"}
TO_COME = {"controller", "uninstall"}
"""Subcommands that may be missing still; their options are compared from when they exist."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container: whose it is, its description, and the pod's."""

    owner: str
    content: Mapping[str, Any]
    pod: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.content["name"])

    @property
    def commands(self) -> list[list[str]]:
        """What it runs, its hooks included."""
        run = [[*self.content.get("command", ()), *self.content.get("args", ())]]
        hooks = self.content.get("lifecycle", {}).values()
        return run + [hook["exec"]["command"] for hook in hooks if "exec" in hook]


def documents(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


def containers(objects: list[dict[str, Any]]) -> Iterator[Container]:
    for one in objects:
        template = one.get("spec", {}).get("template")
        if isinstance(template, dict) and "spec" in template:
            pod = template["spec"]
            for content in [*pod.get("initContainers", ()), *pod["containers"]]:
                yield Container(f"{one['kind']}/{one['metadata']['name']}", content, pod)


def unknown_options(command: list[str]) -> list[str]:
    """Of one of our own commands: subcommand and options that it does not have."""
    if command[0] not in APPS:
        return []
    group: Any = typer.main.get_command(importlib.import_module(APPS[command[0]]).app)
    found = group.commands.get(command[1])
    if found is None:
        return [] if command[1] in TO_COME else [command[1]]
    known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in command[2:] if word.startswith("--")}
    return sorted(given - known)
