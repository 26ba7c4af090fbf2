"""The service account of a pod: its token, which the kubelet replaces in place, and its namespace.

The file decides whether the token was replaced, not a clock: a clock that is set back would keep a token in use until
it expires.
"""

from __future__ import annotations

import os
from pathlib import Path

from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from reconciler.kubernetes.client.errors import NoCluster

FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class TokenFile:
    """A file with a token. It is read again when it is another file, or has changed. The first reading may fail."""

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


def configure(configuration: Configuration, folder: Path = FOLDER) -> str:
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
