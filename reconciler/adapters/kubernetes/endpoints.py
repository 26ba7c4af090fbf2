"""Which addresses a Service's EndpointSlices offer. Pure.

Rules: ready ones; where none is ready, those that still serve while they end, as kube-proxy does. IPv4 where there is
any, IPv6 otherwise: both families of a dual-stack Service lead to the same pods, and an Envoy or a holder without IPv6
is the commoner one. Counterparts: `slices.py`, which keeps the slices; `unit.py`, which knows who is about to end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.adapters.kubernetes.workloads import Endpoint, EndpointSlice

FAMILIES = ("IPv4", "IPv6")
"""In order of preference."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One address of one pod."""

    address: str
    """`ip:port`, IPv6 in brackets."""
    pod: str
    """Its uid; the address where the slice names no pod."""
    ending: bool = False
    """It serves, but its end has begun."""


def offers(slices: Iterable[EndpointSlice], port: str) -> tuple[Offer, ...]:
    """All that can be dialled for the Service's port of that name (empty for its only one), in a fixed order."""
    found: dict[str, dict[str, Offer]] = {family: {} for family in FAMILIES}
    for each in slices:
        if (family := found.get(each.address_type)) is None:
            continue
        numbers = {one.port for one in each.ports or () if one.name == port and one.protocol == "TCP" and one.port}
        for endpoint in each.endpoints or ():
            for number in numbers if endpoint.addresses else ():
                if (offer := _offer(endpoint, each.address_type, number)) and not _is_better(family, offer):
                    family[offer.address] = offer
    for family in found.values():
        if ready := [offer for offer in family.values() if not offer.ending]:
            return _ordered(ready)
    return next((_ordered(family.values()) for family in found.values() if family), ())


def _offer(endpoint: Endpoint, family: str, port: int) -> Offer | None:
    # All addresses of one endpoint are the same pod's, and the API says to use the first.
    ip, conditions = endpoint.addresses[0], endpoint.conditions
    address = f"[{ip}]:{port}" if family == "IPv6" else f"{ip}:{port}"
    pod = (endpoint.target_ref.uid if endpoint.target_ref else "") or address
    ready = conditions.ready is None or conditions.ready
    serving = ready if conditions.serving is None else conditions.serving
    if ready:
        return Offer(address, pod, ending=False)
    return Offer(address, pod, ending=True) if serving and conditions.terminating else None


def _is_better(found: dict[str, Offer], offer: Offer) -> bool:
    """Whether another slice says better of the same address: one is in two slices while it moves between them."""
    before = found.get(offer.address)
    return before is not None and offer.ending and not before.ending


def _ordered(offered: Iterable[Offer]) -> tuple[Offer, ...]:
    return tuple(sorted(offered, key=lambda offer: offer.address))
