"""Which endpoints people are sent to: those that were reached from here. Counterparts: `dials.py`, `unit.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from reconciler.kubernetes.dials import Dialler
from reconciler.kubernetes.endpoints import Offer
from reconciler.kubernetes.unit import Unit


class Reach:
    """Dials each endpoint once, when it appears. Those that a service has when it is first seen have served before."""

    def __init__(
        self, changed: Callable[[str], None], spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
    ) -> None:
        """`changed` is told the service that an endpoint was reached of."""
        self._changed, self._spawn = changed, spawn
        self._dialler = Dialler()

    def reached(self, unit: Unit, shown: Sequence[Offer]) -> tuple[str, ...]:
        """The addresses of the best rank of which anything can be reached; better ones are being dialled.

        Until then, those who were reached before go on: nobody is cut off because somebody better has come.
        """
        pods = {offer.address: offer.pod for offer in shown}
        best = {offer.address: offer.pod for offer in shown if offer.rank == shown[0].rank}
        if unit.reached != best:
            unit.reached = {address: pod for address, pod in unit.reached.items() if pods.get(address) == pod}
            self._dial_new(unit, best)
        if unit.dials:
            for gone in [dialled for dialled in unit.dials if pods.get(dialled[0]) != dialled[1]]:
                unit.dials.pop(gone).cancel()
        can = [offer for offer in shown if offer.address in unit.reached]
        return tuple(offer.address for offer in can if offer.rank == can[0].rank)

    def _dial_new(self, unit: Unit, pods: dict[str, str]) -> None:
        for address, pod in pods.items():
            if address in unit.reached or (address, pod) in unit.dials:
                continue
            if unit.told is None or unit.blind:
                unit.reached[address] = pod
            if unit.told is not None:
                dial = self._dial(unit, address, pod)
                unit.dials[address, pod] = self._spawn(dial, f"dial of {address} for {unit.name}")

    async def _dial(self, unit: Unit, address: str, pod: str) -> None:
        answer = await self._dialler.until_reachable(address)
        del unit.dials[address, pod]
        unit.blind = answer is None
        unit.reached[address] = pod
        self._changed(unit.name)
