"""Listen addresses of the services file: those that Envoy listens on, and those that another program uses.

An address in use is not given to Envoy. Its owner (a service, or `listen.http`, `listen.tls`) keeps its previous
address, and the new one is retried every second. `choose` is pure; `ListenAddresses` probes and keeps state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from reconciler.concurrency import in_thread
from reconciler.core.address import split_address
from reconciler.core.spec import Spec
from reconciler.local.processes.procfs import children_of, run_id
from reconciler.local.services_file import ServicesFile
from reconciler.local.sockets import in_use, listeners

log = structlog.get_logger()

RETRY_SECONDS = 1.0
HTTP, TLS = "listen.http", "listen.tls"
ENVOY = "envoy"


def configured_addresses(file: ServicesFile) -> dict[str, str]:
    """Return the addresses of the file, by owner."""
    shared = {HTTP: file.listen_http, TLS: file.listen_tls}
    own = {entry.spec.name: entry.spec.listen for entry in file.services}
    return {owner: address for owner, address in {**shared, **own}.items() if address}


def choose(
    asked: Mapping[str, str], kept: Mapping[str, str], taken: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Choose an address for each owner: the configured one, or the previous one while that is `taken`.

    `kept` are the previous addresses by owner, `taken` the reasons why addresses are in use. Returns the addresses to
    listen on, and messages about busy ones, by owner.
    """
    free = {owner: address for owner, address in asked.items() if address not in taken}
    served, busy = dict(free), {}
    for owner in asked.keys() - free.keys():
        old, meanwhile = kept.get(owner), "it does not listen"
        if old is not None and old not in taken and old not in free.values():
            served[owner], meanwhile = old, f"it still listens on {old}"
        busy[owner] = f"{owner} cannot listen on {taken[asked[owner]]}; {meanwhile}; retrying every second"
    return served, busy


async def when_free(option: str, address: str, serve: Callable[[], Awaitable[None]]) -> None:
    """Serve at the address of an option as soon as no other program uses it; log the reason until then."""
    reported = None
    while True:
        reason = await in_thread(lambda: in_use(address), "listen address")
        if reason is None:
            try:
                await serve()
                return
            except (OSError, RuntimeError) as error:  # gRPC raises a RuntimeError
                reason = f"{address}: {error}"
        if reason != reported:
            message = f"{option} cannot listen on {reason}; retrying every second"
            log.error("cannot listen", owner=option, reason=message)
        reported = reason
        await asyncio.sleep(RETRY_SECONDS)


class ListenAddresses:
    """The listen addresses in force. Hold `lock` from `probe` to the `choose` that follows."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.served: Mapping[str, str] = {}
        """The addresses that Envoy is to listen on, by owner."""
        self._busy: Mapping[str, str] = {}
        self._before: Mapping[str, str] = {}
        """The addresses before the latest change, which Envoy may reject."""
        self._taken: Mapping[str, str] = {}
        self._is_stale = False
        self._wakeup = asyncio.Event()
        self.lock = asyncio.Lock()

    @property
    def busy(self) -> list[str]:
        """Messages about addresses that another program uses."""
        return [message for _, message in sorted(self._busy.items())]

    def distrust(self) -> None:
        """Probe again: Envoy rejected an update, and may have found an address in use."""
        self._is_stale = True
        self._wakeup.set()

    def retry(self) -> None:
        """Probe busy addresses at once."""
        self._wakeup.set()

    async def probe(self, file: ServicesFile) -> None:
        """Find the addresses of the file that another program uses."""
        asked, served = set(configured_addresses(file).values()), set(self.served.values())
        is_stale, self._is_stale = self._is_stale, False
        suspects = asked | served if is_stale else asked - served
        self._taken = await in_thread(lambda: self._taken_of(suspects), "listen addresses") if suspects else {}

    def choose(self, file: ServicesFile) -> bool:
        """Choose by the latest probe; return whether the addresses have changed."""
        before, busy_before = self.served, self._busy
        kept = {owner: address for owner, address in before.items() if address not in self._taken}
        self.served, self._busy = choose(configured_addresses(file), {**self._before, **kept}, self._taken)
        if self.served != before:
            self._before = before
        for owner, message in sorted(self._busy.items()):
            if busy_before.get(owner) != message:
                log.error("cannot listen", owner=owner, reason=message)
        for owner in busy_before.keys() & self.served.keys() - self._busy.keys():
            log.info("listening", owner=owner, address=self.served[owner])
        return self.served != before

    async def run(self, file: Callable[[], ServicesFile], changed: Callable[[], None]) -> None:
        """Retry busy addresses until cancelled; call `changed` when the addresses have changed."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS if self._busy else None):
                    await self._wakeup.wait()
            self._wakeup.clear()
            async with self.lock:
                await self.probe(file())
                if self.choose(file()):
                    changed()

    def routed(self, file: ServicesFile) -> tuple[str | None, str | None, list[Spec], list[Spec]]:
        """Return listen.http, listen.tls, the services at their present addresses, and those without an address.

        An HTTP service without its own address can still be reached by its hosts.
        """
        specs, nowhere = [], []
        for spec in (entry.spec for entry in file.services):
            at = self.served.get(spec.name)
            if spec.listen == at:
                specs.append(spec)
            elif at is None and not (spec.protocol.is_http and self.served.get(HTTP)):
                nowhere.append(spec)
            else:
                specs.append(replace(spec, listen=at))
        return self.served.get(HTTP), self.served.get(TLS), specs, nowhere

    def _taken_of(self, addresses: set[str]) -> dict[str, str]:
        """Return the reasons why addresses are in use, without those that zenvoy's own Envoy uses."""
        found = {address: reason for address in addresses if (reason := in_use(address))}
        if not found:
            return {}
        ours = {seen.pid for name, seen in children_of(run_id(self._state_dir)) if name == ENVOY}
        return {
            address: reason
            for address, reason in found.items()
            if ours.isdisjoint(listeners(split_address(address)[1]))
        }
