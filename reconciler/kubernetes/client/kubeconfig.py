"""Kubeconfigs by the rules of kubectl: several files are merged, and one context is chosen.

The package `kubernetes` only gets this context. By itself, it lets the last file choose the context, resolves all paths
against one file, sends the newline at the end of a token file, and acts as the user even if the kubeconfig says `as`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from reconciler.kubernetes.client.errors import NoCluster

DEFAULT_FILE = "~/.kube/config"
_PATHS = {"clusters": ("certificate-authority",), "users": ("client-certificate", "client-key", "tokenFile")}
_Named = dict[str, dict[str, dict[str, Any]]]
"""By kind, the clusters, contexts, and users by name."""
_INVALID = (yaml.YAMLError, TypeError, AttributeError, ValueError, LookupError, RecursionError, MemoryError)
"""The errors of a file that is not YAML, or has not the structure of a kubeconfig."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One context, with its cluster and its user."""

    name: str
    namespace: str
    cluster: Mapping[str, Any]
    user: Mapping[str, Any]

    def document(self, credentials: Mapping[str, str]) -> dict[str, Any]:
        """Return a kubeconfig of this context only, with credentials instead of the exec plugin and the token file."""
        user = {key: value for key, value in self.user.items() if not credentials or key not in ("exec", "tokenFile")}
        return {
            "current-context": "context",
            "contexts": [{"name": "context", "context": {"cluster": "cluster", "user": "user"}}],
            "clusters": [{"name": "cluster", "cluster": self.cluster}],
            "users": [{"name": "user", "user": {**user, **credentials}}],
        }

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
    current, named = context or "", _Named(clusters={}, contexts={}, users={})
    for source in sources:
        try:
            content = yaml.safe_load(source.read_text()) or {}
            current = current or content.get("current-context") or ""
            _add(content, source.absolute().parent, named)
        except _INVALID as error:
            raise NoCluster(
                f"{source} is not a valid kubeconfig ({error!r}); choose another with --kubeconfig"
            ) from None
    return _choose(current, named)


def _add(content: Mapping[str, Any], folder: Path, named: _Named) -> None:
    """Add a file of this folder. The first of a name wins."""
    for kind, found in named.items():
        for item in content.get(kind) or ():
            one = dict(item.get(kind.removesuffix("s")) or {})
            one.update((key, str(folder / one[key])) for key in _PATHS.get(kind, ()) if one.get(key))
            if (plugin := one.get("exec")) and os.sep in plugin["command"]:
                one["exec"] = {**plugin, "command": str(folder / plugin["command"])}
            found.setdefault(str(item["name"]), one)


def _choose(name: str, named: _Named) -> Chosen:
    contexts = named["contexts"]
    if not name:
        raise NoCluster("no cluster found: the kubeconfig has no current context; set --kubeconfig or --context")
    if name not in contexts:
        known = ", ".join(map(repr, sorted(contexts))) or "none"
        raise NoCluster(f"no cluster found: context {name!r} does not exist; the kubeconfig has {known}")
    context = contexts[name]
    cluster = named["clusters"].get(context.get("cluster", ""))
    if not cluster or not cluster.get("server"):
        missing = f"cluster {context.get('cluster', '')!r} of context {name!r}"
        raise NoCluster(f"no cluster found: {missing} has no server; set --kubeconfig or --context")
    if "://" not in (server := str(cluster["server"])):
        cluster = {**cluster, "server": f"http://{server}"}  # as kubectl
    return Chosen(name, context.get("namespace") or "default", cluster, named["users"].get(context.get("user", ""), {}))
