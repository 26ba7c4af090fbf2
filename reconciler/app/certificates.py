"""Certificates of one replica: issued by the replicas themselves and kept in Secrets, or read from mounted files.

Both are kept in memory and refreshed in the background, so that no handshake waits for a disk or the API server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog

from reconciler.app.cluster_settings import ReplicaSettings, SelfIssue
from reconciler.core.access import PROXY, RECONCILER, Role
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.secrets import OwnSecrets, Secret
from reconciler.kubernetes.client.work_queue import WorkQueue, WorkQueueTiming
from reconciler.server.credentials import authority, x509
from reconciler.server.credentials.authority import Authority
from reconciler.server.credentials.material import Files, LastUsable, Material, NoCertificates, check
from reconciler.server.credentials.x509 import Subject

log = structlog.get_logger()

REISSUE_ANNOTATION = "zenvoy.dev/reissue"
"""On the authority's Secret: replace the authority now, and trust no earlier one."""
CHECK_SECONDS = 600.0
"""The time between two checks for certificates that need renewal."""
READ_SECONDS = 5.0
"""The time between two readings of mounted files."""
PACE = WorkQueueTiming(batch_window=0.0)
CA, OWN, PROXIES = "ca", "reconciler", "proxy"
"""Certificates, as metrics and `doctor` name them."""


class MountedCertificates:
    """Certificates in files that Kubernetes replaces."""

    def __init__(self, files: Files) -> None:
        """Raises `NoCertificates`."""
        self._files = files
        self._last = LastUsable(self._found)

    @property
    def expiries(self) -> Mapping[str, float]:
        """Ends of validity, in seconds since the epoch, by certificate."""
        return _expiries({CA: self._last.material.authority, OWN: self._last.material.certificate})

    def read(self) -> Material:
        """Return the present certificates."""
        return self._last.material

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(READ_SECONDS)
            await asyncio.to_thread(self._last.refresh)

    def _found(self) -> Material:
        material = self._files.read()
        check(material, str(self._files.certificate), Role.RECONCILER)
        return material


class SelfIssuedCertificates:
    """Certificates that the replicas issue. Every replica may write; the API server accepts one write per version.

    The replica's own certificate and key stay in memory. The authority, and the proxy's certificate, are in Secrets.
    """

    def __init__(self, api: Api, namespace: str, settings: SelfIssue, names: tuple[str, ...]) -> None:
        """`names` are DNS names of the reconcilers."""
        self._namespace, self._settings = namespace, settings
        kept = [name for name in (settings.authority_secret, settings.proxy_secret) if name]
        self._secrets = OwnSecrets(api, namespace, kept, self._check)
        self._queue = WorkQueue(self._renew, "certificates cannot be stored; renewal is retried", PACE)
        self._own = Subject(OWN, RECONCILER.uri, names, serves=True)
        self._proxy = Subject(PROXIES, PROXY.uri)
        self._authority: Authority | None = None
        self._material: Material | None = None
        self._proxy_certificate = b""
        self._missing: set[str] = set()

    @property
    def expiries(self) -> Mapping[str, float]:
        """Ends of validity, in seconds since the epoch, by certificate."""
        parts = {
            CA: self._authority.active.certificate if self._authority else b"",
            OWN: self._material.certificate if self._material else b"",
            PROXIES: self._proxy_certificate,
        }
        return _expiries({name: pem for name, pem in parts.items() if pem})

    def read(self) -> Material:
        """Return the present certificates. Raises `NoCertificates` until there are any."""
        if self._material is None:
            raise NoCertificates("no certificate has been issued yet; see the log for the reason")
        return self._material

    async def run(self) -> None:
        """Refresh until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._secrets.run())
            tasks.create_task(self._queue.run())

    def _check(self) -> None:
        if self._secrets.synced:
            self._queue.add(OWN)

    async def _renew(self, _: str) -> None:
        """Renew what is due, in Secrets and in memory. Raises `ApiError` and `Unreachable`; then it is retried."""
        self._queue.add_after(OWN, CHECK_SECONDS)
        found = self._find(self._settings.authority_secret)
        if found is None:
            return
        self._authority = await self._agreed(found)
        self._material = authority.issued(self._material, self._authority, self._own, time.time())
        if self._settings.proxy_secret and (for_proxy := self._find(self._settings.proxy_secret)):
            await self._issue_for_proxy(for_proxy, self._authority)

    async def _agreed(self, found: Secret) -> Authority:
        """Return the authority of all replicas, which is the stored one; store what is due first."""
        is_replaced = REISSUE_ANNOTATION in found.metadata.annotations
        # Removed data comes back from memory: `helm upgrade --force` must not replace the authority.
        before = None if is_replaced else authority.stored(found.data) or self._authority
        made = authority.current(before, time.time())
        if is_replaced or made.data() != found.data:
            await self._secrets.write(self._settings.authority_secret, found, made.data(), REISSUE_ANNOTATION)
            self._report(self._settings.authority_secret, made.active.certificate)
        return made

    async def _issue_for_proxy(self, found: Secret, by: Authority) -> None:
        made = authority.issued(authority.material(found.data), by, self._proxy, time.time())
        if authority.contents(made) != found.data:
            await self._secrets.write(self._settings.proxy_secret, found, authority.contents(made))
            self._report(self._settings.proxy_secret, made.certificate)
        self._proxy_certificate = made.certificate

    def _find(self, name: str) -> Secret | None:
        found = self._secrets.find(name)
        if found is not None:
            self._missing.discard(name)
        elif name not in self._missing:
            self._missing.add(name)
            where = f"{self._namespace}/{name}"
            log.error("a Secret for certificates does not exist; install the chart again to create it", secret=where)
        return found

    def _report(self, secret: str, certificate: bytes) -> None:
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(x509.read(certificate).validity.until))
        log.info("certificates stored", secret=f"{self._namespace}/{secret}", until=until)


def certificates(settings: ReplicaSettings, api: Api) -> MountedCertificates | SelfIssuedCertificates | None:
    """Return the certificates that a replica is configured with; None for plaintext. Raises `NoCertificates`."""
    match settings.certificates:
        case Files() as files:
            return MountedCertificates(files)
        case SelfIssue() as self_issue:
            names = authority.dns_names(settings.server_name, settings.policy.domain)
            return SelfIssuedCertificates(api, settings.lease_namespace, self_issue, names)
        case None:
            return None


def _expiries(certificates: Mapping[str, bytes]) -> dict[str, float]:
    return {name: x509.read(pem).validity.until for name, pem in certificates.items()}
