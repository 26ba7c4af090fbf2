"""Kubeconfigs by the rules of kubectl: several files are merged, and one context is chosen.

The package `kubernetes` only gets this context. By itself, it lets the last file choose the context, resolves all paths
against one file, sends the newline at the end of a token file, and acts as the user even if the kubeconfig says `as`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from reconciler.kubernetes.client.errors import NoCluster

DEFAULT_FILE = "~/.kube/config"
_PATHS = {"clusters": ("certificate-authority",), "users": ("client-certificate", "client-key", "tokenFile")}


@dataclass(frozen=True, slots=True)
class Chosen:
    """One context, with its cluster and its user."""

    name: str
    namespace: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any]
    document: Mapping[str, Any] = field(repr=False)
    """A kubeconfig of this context only."""

    def with_user(self, **fields: str) -> Mapping[str, Any]:
        """Return the document with these fields of the user, instead of its exec plugin and its token file."""
        kept = {key: value for key, value in self.user.items() if key not in ("exec", "tokenFile")}
        return {**self.document, "users": [{"name": "user", "user": {**kept, **fields}}]}

    @property
    def impersonation(self) -> list[tuple[str, str]]:
        """Headers that make the API server act as another user, as kubectl sends them."""
        user = self.user
        headers = [("Impersonate-User", user.get("as")), ("Impersonate-Uid", user.get("as-uid"))]
        headers += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
        for key, values in (user.get("as-user-extra") or {}).items():
            headers += [(f"Impersonate-Extra-{quote(key.lower(), safe='')}", value) for value in values]
        return [(name, value) for name, value in headers if value]


def files(explicit: Path | None, environment: Mapping[str, str]) -> list[Path]:
    """Return the files to read; empty if there are none. Raises `NoCluster` if the explicit one is missing."""
    if explicit is not None:
        if not explicit.exists():
            raise NoCluster(f"{explicit} does not exist; set --kubeconfig to a kubeconfig")
        return [explicit]
    named = [name for name in environment.get("KUBECONFIG", "").split(os.pathsep) if name]
    # A user id without a name may have no home; `Path.expanduser` would raise an error then.
    return [file for one in named or [DEFAULT_FILE] if (file := Path(os.path.expanduser(one))).exists()]


def read(sources: Iterable[Path], context: str | None) -> Chosen:
    """Merge the files, and return the context of this name, or the current one. Raises `NoCluster` and `OSError`."""
    current, merged = context or "", _Merged()
    for source in sources:
        try:
            content = yaml.safe_load(source.read_text()) or {}
            current = current or content.get("current-context") or ""
            merged.add(content, source.absolute().parent)
        except (
            yaml.YAMLError,
            TypeError,
            AttributeError,
            ValueError,
            LookupError,
            RecursionError,
            MemoryError,
        ) as error:  # not YAML, or not the structure of a kubeconfig
            raise NoCluster(
                f"{source} is not a valid kubeconfig ({error!r}); choose another with --kubeconfig"
            ) from None
    return merged.choose(current)


class _Merged:
    """The clusters, contexts, and users of several files. The first of a name wins."""

    def __init__(self) -> None:
        self._named: dict[str, dict[str, dict[str, Any]]] = {"clusters": {}, "contexts": {}, "users": {}}

    def add(self, content: Mapping[str, Any], folder: Path) -> None:
        """Add a file of this folder."""
        for kind, found in self._named.items():
            for item in content.get(kind) or ():
                one = dict(item.get(kind.removesuffix("s")) or {})
                one.update((key, str(folder / one[key])) for key in _PATHS.get(kind, ()) if one.get(key))
                if (plugin := one.get("exec")) and os.sep in plugin["command"]:
                    one["exec"] = {**plugin, "command": str(folder / plugin["command"])}
                found.setdefault(str(item["name"]), one)

    def choose(self, name: str) -> Chosen:
        contexts = self._named["contexts"]
        if not name:
            raise NoCluster("no cluster found: the kubeconfig has no current context; set --kubeconfig or --context")
        if name not in contexts:
            known = ", ".join(_quoted(contexts)) or "none"
            raise NoCluster(f"no cluster found: context {name!r} does not exist; the kubeconfig has {known}")
        context = contexts[name]
        cluster = self._named["clusters"].get(context.get("cluster", ""))
        if not cluster or not cluster.get("server"):
            missing = f"cluster {context.get('cluster', '')!r} of context {name!r}"
            raise NoCluster(f"no cluster found: {missing} has no server; set --kubeconfig or --context")
        cluster, user = _checked(cluster), self._named["users"].get(context.get("user", ""), {})
        return Chosen(name, context.get("namespace") or "default", cluster, user, _document(cluster, user))


def _quoted(names: Iterable[str]) -> Iterator[str]:
    return map(repr, sorted(names))


def _checked(cluster: dict[str, Any]) -> dict[str, Any]:
    """Return the cluster with a whole URL; like kubectl, `http` if it has no scheme."""
    server = str(cluster["server"])
    return cluster if "://" in server else {**cluster, "server": f"http://{server}"}


def _document(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "current-context": "context",
        "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
    }
