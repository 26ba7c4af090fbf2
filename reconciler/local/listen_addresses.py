"""Listen addresses of the services file: the ones that Envoy gets, and the ones that wait for another program.

An address that is in use is not given to Envoy. Its owner (a service, or `listen.http`, `listen.tls`) keeps the address
that it had, and the new one is tried again every second. `choose` is pure; `Listening` looks and remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from reconciler.core.spec import Spec
from reconciler.local.processes.procfs import children_of, run_id
from reconciler.local.services_file import ServicesFile
from reconciler.local.sockets import in_use, listeners, split
from reconciler.threads import in_thread

log = structlog.get_logger()

RETRY_SECONDS = 1.0
HTTP, TLS = "listen.http", "listen.tls"
ENVOY = "envoy"


@dataclass(frozen=True, slots=True)
class BusyAddress:
    """An address that another program has."""

    owner: str
    wanted: str
    why: str
    """The address, the error, and the program that has it, as far as it is known."""
    instead: str | None
    """The address that its owner keeps meanwhile."""

    def __str__(self) -> str:
        kept = f"it still listens on {self.instead}" if self.instead else "it does not listen"
        return f"{self.owner} cannot listen on {self.why}; {kept}; it is tried again every second"


@dataclass(frozen=True, slots=True)
class AddressChoice:
    """The addresses to listen on, and those that are busy, both by owner."""

    served: Mapping[str, str]
    busy: Mapping[str, BusyAddress]


def wanted(file: ServicesFile) -> dict[str, str]:
    """Return the addresses that the file asks for, by owner."""
    shared = {HTTP: file.listen_http, TLS: file.listen_tls}
    own = {entry.spec.name: entry.spec.listen for entry in file.services}
    return {owner: address for owner, address in {**shared, **own}.items() if address}


def choose(asked: Mapping[str, str], kept: Mapping[str, str], taken: Mapping[str, str]) -> AddressChoice:
    """Choose an address for each owner: the one it asks for, or the one that it has while that one is `taken`.

    `kept` are the addresses that owners had, `taken` says why an address cannot be listened on.
    """
    served = {owner: address for owner, address in asked.items() if address not in taken}
    busy = {}
    for owner in asked.keys() - served.keys():
        old = kept.get(owner)
        is_usable = old is not None and old not in taken and old not in served.values()
        busy[owner] = BusyAddress(owner, asked[owner], taken[asked[owner]], old if is_usable else None)
    return AddressChoice({**served, **{one.owner: one.instead for one in busy.values() if one.instead}}, busy)


async def when_free(option: str, address: str, serve: Callable[[], Awaitable[None]]) -> None:
    """Serve at the address of an option as soon as no other program has it; report once why it is not possible."""
    reported = None
    while True:
        why = await in_thread(lambda: in_use(address), "listen address")
        if why is None:
            try:
                await serve()
                return
            except (OSError, RuntimeError) as error:  # gRPC raises a RuntimeError
                why = f"{address}: {error}"
        if why != reported:
            log.error(
                "cannot listen", owner=option, why=f"{option} cannot listen on {why}; it is tried again every second"
            )
        reported = why
        await asyncio.sleep(RETRY_SECONDS)


class ListenAddresses:
    """The listen addresses in force. Hold `lock` from a look to the choice that follows it."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._choice = AddressChoice({}, {})
        self._before: Mapping[str, str] = {}
        """The addresses in force before the latest change, which Envoy may reject."""
        self._taken: Mapping[str, str] = {}
        self._in_doubt = False
        self._hurry = asyncio.Event()
        self.lock = asyncio.Lock()

    @property
    def served(self) -> Mapping[str, str]:
        """The addresses that Envoy is to listen on, by owner."""
        return self._choice.served

    @property
    def busy(self) -> list[BusyAddress]:
        """The addresses that another program has."""
        return [busy for _, busy in sorted(self._choice.busy.items())]

    def doubt(self) -> None:
        """Note that Envoy rejected something: it may have found an address in use."""
        self._in_doubt = True
        self._hurry.set()

    def retry(self) -> None:
        """Look at once whether busy addresses are free."""
        self._hurry.set()

    async def look(self, file: ServicesFile) -> None:
        """Find out which addresses of the file another program has."""
        asked, served = set(wanted(file).values()), set(self.served.values())
        in_doubt, self._in_doubt = self._in_doubt, False
        suspects = asked | served if in_doubt else asked - served
        self._taken = await in_thread(lambda: self._taken_of(suspects), "listen addresses") if suspects else {}

    def choose(self, file: ServicesFile) -> bool:
        """Choose by the latest look; return whether other addresses are in force now."""
        before, asked = self._choice, wanted(file)
        kept = {owner: address for owner, address in before.served.items() if address not in self._taken}
        self._choice = choose(asked, {**self._before, **kept}, self._taken)
        if self._choice.served != before.served:
            self._before = before.served
        for busy in self.busy:
            if before.busy.get(busy.owner) != busy:
                log.error("cannot listen", owner=busy.owner, why=str(busy))
        for owner in before.busy.keys() & self._choice.served.keys() - self._choice.busy.keys():
            log.info("listens", owner=owner, address=self._choice.served[owner])
        return self._choice.served != before.served

    async def run(self, file: Callable[[], ServicesFile], changed: Callable[[], None]) -> None:
        """Try busy addresses again until cancelled; call `changed` when others are in force."""
        while True:
            try:
                async with asyncio.timeout(RETRY_SECONDS if self._choice.busy else None):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            async with self.lock:
                await self.look(file())
                if self.choose(file()):
                    changed()

    def routed(self, file: ServicesFile) -> tuple[str | None, str | None, list[Spec], list[Spec]]:
        """Return listen.http, listen.tls, and the services with their listeners, as they are in force.

        Last come the services that can listen nowhere: what is in flight to them continues.
        """
        specs, nowhere = [], []
        for spec in (entry.spec for entry in file.services):
            at = self.served.get(spec.name)
            if spec.listen == at:
                specs.append(spec)
            elif at is None:
                nowhere.append(spec)
            else:
                specs.append(replace(spec, listen=at))
        return self.served.get(HTTP), self.served.get(TLS), specs, nowhere

    def _taken_of(self, addresses: set[str]) -> dict[str, str]:
        """Return why addresses are in use, but for those whose port our own Envoy has."""
        found = {address: why for address in addresses if (why := in_use(address))}
        if not found:
            return {}
        ours = {seen.pid for name, seen in children_of(run_id(self._state_dir)) if name == ENVOY}
        return {address: why for address, why in found.items() if ours.isdisjoint(listeners(split(address)[1]))}
