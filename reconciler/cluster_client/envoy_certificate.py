"""A certificate for an external Envoy and its holder."""

from __future__ import annotations

import os
import time
from pathlib import Path

from reconciler.cluster_client.cluster import ClusterClient, ClusterError
from reconciler.core.access import envoy
from reconciler.kubernetes.client.secrets import Secret
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.server.credentials import authority
from reconciler.server.credentials.material import Material
from reconciler.server.credentials.x509 import Subject

_NO_AUTHORITY = (
    "Secret {where} {reason}; name the Secret of the installation's authority with --ca-secret and --system-namespace. "
    "With an authority outside the cluster, issue a certificate there with the URI SAN {uri} (docs/how-to/mtls.md)"
)


async def issue(cluster: ClusterClient, secret: str, node: str, days: int) -> Material:
    """Return a certificate for that node id, signed by the authority in a Secret.

    Raises `ClusterError` and `ApiError`.
    """
    subject, where = Subject(node, envoy(node).uri), f"{cluster.options.system}/{secret}"
    answer = await cluster.api.find(path("v1", "secrets", cluster.options.system, secret))
    found = authority.stored(decoder(Secret)(answer).data) if answer else None
    if found is None:
        reason = "contains no authority" if answer else "does not exist"
        raise ClusterError(_NO_AUTHORITY.format(where=where, reason=reason, uri=subject.uri))
    return authority.certificate(found, subject, time.time(), days * authority.DAY_SECONDS)


def write(material: Material, directory: Path) -> list[Path]:
    """Write the three files into a directory, each atomically. Raises `OSError`.

    The certificate is last: Envoy reloads all files when one is moved into the directory, and rejects a pair that does
    not match, so that it switches from the old pair to the new one.
    """
    contents = authority.contents(material)
    written = []
    for name in (authority.AUTHORITY, authority.KEY, authority.CERTIFICATE):
        new, path = directory / f".{name}.new", directory / name
        new.unlink(missing_ok=True)
        mode = 0o600 if name == authority.KEY else 0o644
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            file.write(contents[name])
        new.replace(path)
        written.append(path)
    return written
