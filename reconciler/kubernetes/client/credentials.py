"""The credentials of calls to the API server, from kubeconfigs or from the service account of a pod.

Kubeconfigs follow the rules of kubectl: several files are merged, and one context is chosen. The package `kubernetes`
only gets this context. By itself, it lets the last file choose the context, resolves all paths against one file, sends
the newline at the end of a token file, and acts as the user even if the kubeconfig says `as`. Exec plugins are programs
that return credentials (client.authentication.k8s.io).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from reconciler.kubernetes.client.errors import NoCluster

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_FILE = "~/.kube/config"
CLUSTER_KEYS = (
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority-data",
    "proxy-url",
    "disable-compression",
)
"""The parts of a cluster that an exec plugin gets."""
CONFIG_EXTENSION = "client.authentication.k8s.io/exec"
MAX_ERROR_LENGTH = 500
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


def kubeconfig_files(explicit: Path | None, environment: Mapping[str, str]) -> list[Path]:
    """Return the files to read; empty if there are none. Raises `NoCluster` if the explicit one is missing."""
    if explicit is not None:
        if not explicit.exists():
            raise NoCluster(f"{explicit} does not exist; set --kubeconfig to a kubeconfig")
        return [explicit]
    named = [name for name in environment.get("KUBECONFIG", "").split(os.pathsep) if name]
    # A user id without a name may have no home; `Path.expanduser` would raise an error then.
    return [file for one in named or [DEFAULT_FILE] if (file := Path(os.path.expanduser(one))).exists()]


def read_kubeconfigs(sources: Iterable[Path], context: str | None) -> Chosen:
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


async def exec_credentials(plugin: Mapping[str, Any], cluster: Mapping[str, Any]) -> dict[str, str]:
    """Run an exec plugin, and return its credentials as fields of a kubeconfig's user. Raises `NoCluster`.

    There is no time limit, because a plugin may wait for a login.
    """
    command = str(plugin["command"])
    variables = {item["name"]: item["value"] for item in plugin.get("env") or ()}
    info = json.dumps(_exec_info(plugin, cluster))
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *(plugin.get("args") or ()),
            env={**os.environ, **variables, "KUBERNETES_EXEC_INFO": info},
            stdout=asyncio.subprocess.PIPE,
            # On a terminal, a plugin asks the user to log in.
            stderr=None if sys.stderr.isatty() else asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = str(plugin.get("installHint") or "").strip()
        raise NoCluster(f"the exec plugin {command} cannot be run: {error.strerror}{hint and f'; {hint}'}") from None
    output, errors = await process.communicate()
    if process.returncode:
        message = (errors or b"").decode(errors="replace").strip()[-MAX_ERROR_LENGTH:]
        raise NoCluster(
            f"the exec plugin {command} failed with exit code {process.returncode}{message and f': {message}'}"
        )
    try:
        return _user(json.loads(output)["status"])
    except (ValueError, TypeError, LookupError, AttributeError):
        raise NoCluster(
            f"the exec plugin {command} returned no credentials; expected an ExecCredential with status.token, "
            "or with status.clientCertificateData and status.clientKeyData"
        ) from None


def _exec_info(plugin: Mapping[str, Any], cluster: Mapping[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": plugin.get("interactiveMode") != "Never" and sys.stdin.isatty()}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {key: cluster[key] for key in CLUSTER_KEYS if key in cluster}
        if authority := cluster.get("certificate-authority"):
            encoded = base64.b64encode(Path(authority).read_bytes()).decode()
            spec["cluster"].setdefault("certificate-authority-data", encoded)
        for extension in cluster.get("extensions") or ():
            if extension["name"] == CONFIG_EXTENSION:
                spec["cluster"]["config"] = extension["extension"]
    return {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}


def _user(status: Mapping[str, Any]) -> dict[str, str]:
    fields = {"token": status["token"]} if status.get("token") else {}
    if status.get("clientCertificateData"):
        fields["client-certificate-data"] = base64.b64encode(status["clientCertificateData"].encode()).decode()
        fields["client-key-data"] = base64.b64encode(status["clientKeyData"].encode()).decode()
    if not fields:
        raise LookupError
    return fields


class TokenFile:
    """A file with a token. It is read again when it is another file, or has changed. The first reading may fail.

    The kubelet replaces a pod's token in place. The file decides whether it was replaced, not a clock: a clock that is
    set back would keep a token in use until it expires.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._token = ""

    def read(self) -> str:
        """Return the token; the previous one while the file is missing or empty. Raises `OSError`."""
        try:
            found = os.stat(self._path)
            version = found.st_dev, found.st_ino, found.st_mtime_ns
            if version != self._version and (token := self._path.read_text().strip()):
                self._token, self._version = token, version
        except OSError:
            if not self._token:
                raise
        return self._token

    def refresh(self, target: Configuration) -> None:
        """Put the token into a configuration. Raises `OSError`."""
        target.api_key["BearerToken"] = f"Bearer {self.read()}"


def configure_in_pod(configuration: Configuration, folder: Path = SERVICE_ACCOUNT) -> str:
    """Set the cluster of this pod, and return the pod's namespace. Raises `NoCluster`."""
    token = TokenFile(folder / "token")
    try:
        loader = config.incluster_config.InClusterConfigLoader(
            str(folder / "token"), str(folder / "ca.crt"), try_refresh_token=False
        )
        loader.load_and_set(configuration)
        token.refresh(configuration)
        namespace = (folder / "namespace").read_text().strip()
    except (config.ConfigException, OSError) as error:
        raise NoCluster(f"cannot use this pod's service account: {error}") from None
    configuration.refresh_api_key_hook = token.refresh
    return namespace
