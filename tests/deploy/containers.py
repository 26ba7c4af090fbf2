"""The containers in manifests, and a check of their command-line options."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer
import yaml

APPS = {"zenvoy": "reconciler.cli.main", "zenvoy-tproxy": "tproxy.cli"}


@dataclass(frozen=True, slots=True)
class Container:
    """A container, its owner, and its pod."""

    owner: str
    content: Mapping[str, Any]
    pod: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.content["name"])

    @property
    def commands(self) -> list[list[str]]:
        """The commands of the container, including its hooks."""
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


def ports_of_proxies(objects: list[dict[str, Any]]) -> list[int | str]:
    """Return the ports of proxy pods to which Services and NetworkPolicies refer, by number or by name."""
    found: list[int | str] = []
    for one in objects:
        spec = one.get("spec", {})
        chosen = spec.get("selector") or spec.get("podSelector", {}).get("matchLabels", {})
        if chosen.get("app.kubernetes.io/component") == "proxy":
            if one["kind"] == "Service":
                found += [port["targetPort"] for port in spec["ports"]]
            elif one["kind"] == "NetworkPolicy":
                found += [port["port"] for rule in spec["ingress"] for port in rule["ports"]]
    return found


def unknown_options(command: list[str]) -> list[str]:
    """Return the subcommand and options that one of zenvoy's own commands does not have."""
    if command[0] not in APPS:
        return []
    group: Any = typer.main.get_command(importlib.import_module(APPS[command[0]]).app)
    found = group.commands.get(command[1])
    if found is None:
        return [command[1]]
    known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in command[2:] if word.startswith("--")}
    return sorted(given - known)
