"""A model of a cluster with one Service that zenvoy captures and releases.

The parts that take part move one step at a time, in any order: Kubernetes' controller of endpoints, the informers of
zenvoy, and zenvoy's leader, which decides with the product's own functions about the product's own objects. Each part
may be arbitrarily late. In addition, anything of `events` may happen between any two steps.

Assumptions: a watch reports the changes of its objects in order, so a caller sees a former state of all EndpointSlices
together. Kubernetes' controller acts on the newest version of a Service. A write of a former leader takes effect before
the next one writes, or never: the Lease ensures that. An Envoy applies a configuration sooner or later.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from reconciler.kubernetes.capture import objects
from reconciler.kubernetes.capture.plan import (
    Action,
    CaptureObjects,
    RequiredObjects,
    Wait,
    next_to_capture,
    next_to_release,
    without_proxy,
)
from reconciler.kubernetes.types.builtin import CAPTURED, Endpoint, EndpointSlice, Service
from tests.reconciler.kubernetes.objects import scaled, service

ITEM, PORT = scaled(), 12000
NONE = frozenset[str]()
CAPTURE, NO_CAPTURE, DELETED, GONE = "capture", "capture: none", "being deleted", "gone"
"""The ScaledService: captures its Service, no longer does, waits for its finalizer, or does not exist."""
VISIBLE, HIDDEN, SETTLED = range(3)
"""The knowledge of zenvoy: callers may bypass the proxy, new ones cannot, and for long enough to rely on it."""


class Services(NamedTuple):
    """The Service and its companion."""

    uid: int = 0
    is_hidden: bool = False
    companion: int | None = None
    """The uid of the Service for which it was written; None if there is no companion."""


class Slices(NamedTuple):
    """The EndpointSlices."""

    pods: frozenset[str] = NONE
    companion_pods: frozenset[str] = NONE
    own: tuple[int, frozenset[str]] | None = None
    """The uid of the Service for which zenvoy wrote it, and the ready proxies; None if it does not exist."""


class State(NamedTuple):
    """The state of everything."""

    wish: str = GONE
    pods: frozenset[str] = NONE
    """Ready pods."""
    proxies: frozenset[str] = NONE
    """Ready proxies."""
    silent: frozenset[str] = NONE
    """Those of them that do not accept connections for the Service yet."""
    listens: bool = True
    """True if the configuration in force has the listener of the Service."""
    services: Services = Services()
    slices: Slices = Slices()
    seen_services: Services = Services()
    is_current: bool = True
    """True if zenvoy has seen the newest version of the Service."""
    seen_slices: Slices = Slices()
    callers: int = VISIBLE
    is_promised: bool = False
    """True if callers have to reach something: they did when all knew everything, and nothing they needed has gone."""
    known: frozenset[str] = NONE
    """Ready pods that everybody knew once."""

    @property
    def reached(self) -> frozenset[str]:
        """The ready pods, and the proxies that accept its connections, to which the Service leads a caller."""
        listening = self.proxies - self.silent if self.listens and self.wish != GONE else NONE
        return (self.slices.pods & self.pods) | (self.slices.own[1] & listening if self.slices.own else NONE)

    @property
    def listed(self) -> Slices:
        """The EndpointSlices once Kubernetes' controller has done its work."""
        pods = NONE if self.services.is_hidden else self.pods
        return Slices(pods, NONE if self.services.companion is None else self.pods, self.slices.own)

    @property
    def is_known(self) -> bool:
        """True if everybody knows everything."""
        return self.is_current and (self.seen_services, self.seen_slices, self.listed) == (
            self.services,
            self.slices,
            self.slices,
        )

    @property
    def step(self) -> Action | Wait | None:
        """The next step of zenvoy, by what it has seen."""
        return decide(self.wish, self.listens, self.proxies, self.seen_services, self.seen_slices)


@cache
def observed(services: Services, slices: Slices) -> CaptureObjects:
    """Return the observation of zenvoy."""
    own = slices.own and objects.proxy_slices(ITEM, web(slices.own[0]), endpoints(slices.own[1]), PORT)
    return CaptureObjects(
        services.is_hidden,
        objects.ready_pods([EndpointSlice(endpoints=endpoints(slices.pods))]),
        objects.ready_pods([EndpointSlice(endpoints=endpoints(slices.companion_pods))]),
        None if services.companion is None else objects.companion(ITEM, web(services.companion)),
        own,
    )


@cache
def decide(
    wish: str, listens: bool, proxies: frozenset[str], services: Services, slices: Slices
) -> Action | Wait | None:
    """Return the next step, as `CaptureController` does."""
    seen = observed(services, slices)
    item = web(services.uid, services.is_hidden)
    slices_of = objects.proxy_slices(ITEM, item, endpoints(proxies), PORT)
    required = RequiredObjects(objects.companion(ITEM, item), slices_of, bool(proxies))
    if wish != CAPTURE:
        return next_to_release(seen, wish != GONE, required if listens and wish != GONE else None)
    return next_to_capture(seen, required) if listens else without_proxy(seen, "the proxies do not listen")


@cache
def web(uid: int, is_hidden: bool = False) -> Service:
    """Return the Service."""
    key = f"{{{CAPTURED}: 'true'}}" if is_hidden else "{}"
    return service(f"{{ports: [{{port: 80, targetPort: 8080}}], selector: {key}}}", uid=f"uid-{uid}")


def endpoints(addresses: frozenset[str]) -> tuple[Endpoint, ...]:
    return tuple(Endpoint((address,)) for address in sorted(addresses))


# What happens on its own


def steps(state: State) -> Iterator[tuple[str, State]]:
    """Return all steps that one of the parts may take next, each with the state after it."""
    listed = state.listed
    if state.slices.pods != listed.pods:
        yield "controller lists pods", noted(state._replace(slices=state.slices._replace(pods=listed.pods)))
    if state.slices.companion_pods != listed.companion_pods:
        slices = state.slices._replace(companion_pods=listed.companion_pods)
        yield "controller lists pods of the companion", noted(state._replace(slices=slices))
    if not state.is_current or state.seen_services != state.services:
        yield "Services seen", noted(state._replace(seen_services=state.services, is_current=True))
    if state.seen_slices != state.slices:
        yield "slices seen", noted(state._replace(seen_slices=state.slices))
    step = state.step
    if isinstance(step, Action) and (after := noted(written(state, step))) != state:
        yield str(step), after
    for proxy in sorted(state.silent):
        yield f"proxy {proxy} accepts", noted(state._replace(silent=state.silent - {proxy}))
    if state.callers == HIDDEN and (state.seen_services, state.seen_slices) == (state.services, state.slices):
        yield "settled", state._replace(callers=SETTLED)
    if state.is_known and state.wish == DELETED and step is None:
        yield "finalizer removed", state._replace(wish=GONE)


def written(state: State, step: Action) -> State:
    """Return the state after a write, which the API server refuses if it is for another version of an object."""
    services, slices, seen = state.services, state.slices, state.seen_services
    if step.breaks and step != decide(state.wish, state.listens, state.proxies, services, slices):
        return state
    match step:
        case Action.WRITE_COMPANION:
            return state._replace(services=services._replace(companion=seen.uid))
        case Action.WRITE_SLICES | Action.HIDE_PODS if state.silent and not seen.is_hidden:
            return state
        case Action.WRITE_SLICES if (slices.own is None) is not (state.seen_slices.own is None):
            return state
        case Action.WRITE_SLICES:
            return state._replace(slices=slices._replace(own=(seen.uid, state.proxies)))
        case Action.HIDE_PODS if not state.is_current:
            return state
        case Action.HIDE_PODS:
            return state._replace(services=services._replace(is_hidden=True), is_current=False)
        case Action.SHOW_PODS if seen.uid != services.uid:
            return state
        case Action.SHOW_PODS:
            return state._replace(services=services._replace(is_hidden=False), is_current=False)
        case Action.DELETE_SLICES:
            return state._replace(slices=slices._replace(own=None))
        case Action.DELETE_COMPANION:
            gone = state._replace(services=services._replace(companion=None))
            return gone._replace(slices=slices._replace(companion_pods=NONE))


def noted(state: State) -> State:
    """Return the state after zenvoy has noted whether callers may bypass the proxy, and with the promises."""
    is_closed, is_known = observed(state.seen_services, state.seen_slices).is_closed, state.is_known
    callers = max(state.callers, HIDDEN) if is_closed else VISIBLE
    is_promised = state.is_promised or (is_known and bool(state.reached))
    known = state.pods if is_known else state.known & state.pods
    if (callers, is_promised, known) == (state.callers, state.is_promised, state.known):
        return state
    return state._replace(callers=callers, is_promised=is_promised, known=known)


# What may happen in addition


def events(state: State, pods: str, proxies: str) -> Iterator[tuple[str, State]]:
    """Return everything else that may happen next, each with the state after it."""
    for pod in pods:
        if pod in state.pods:
            yield f"pod {pod} goes", lost(state, state._replace(pods=state.pods - {pod}))
        else:
            yield f"pod {pod} is ready", noted(state._replace(pods=state.pods | {pod}))
    for proxy in proxies:
        if proxy in state.proxies:
            gone = state._replace(proxies=state.proxies - {proxy}, silent=state.silent - {proxy})
            yield f"proxy {proxy} goes", lost(state, gone)
        else:
            yield f"proxy {proxy} is ready", noted(state._replace(proxies=state.proxies | {proxy}))
    yield from wishes(state)
    if state.listens:
        yield "listener goes", lost(state, state._replace(listens=False))
    else:
        yield "listener returns", noted(state._replace(listens=True, silent=state.proxies))
    if state.services.is_hidden:
        overwritten = state.services._replace(is_hidden=False)
        yield "selector overwritten", noted(state._replace(services=overwritten, is_current=False))
    if state.slices.own:
        yield "slices deleted", lost(state, state._replace(slices=state.slices._replace(own=None)))
    if not state.services.uid:
        services = Services(1, companion=state.services.companion)
        slices = state.slices._replace(pods=NONE)
        replaced = state._replace(services=services, is_current=False, slices=slices, known=NONE)
        yield "Service replaced", lost(state, replaced)
    if state.callers:
        yield "leader crashes", noted(state._replace(callers=VISIBLE))


def wishes(state: State) -> Iterator[tuple[str, State]]:
    """Return what people may do with the ScaledService."""
    if state.wish == GONE:
        yield "ScaledService created", noted(state._replace(wish=CAPTURE, silent=state.proxies))
        return
    yield "ScaledService removed by force", lost(state, state._replace(wish=GONE))
    if state.wish != DELETED:
        yield "ScaledService deleted", noted(state._replace(wish=DELETED))
    if state.wish == CAPTURE:
        yield "capture: none", noted(state._replace(wish=NO_CAPTURE))
    if state.wish == NO_CAPTURE:
        yield "capture: proxy", noted(state._replace(wish=CAPTURE))


def lost(before: State, after: State) -> State:
    """Return the state after a loss. It ends the promise, unless callers still reach what the Service leads them to.

    A pod that is lost while Kubernetes lists it for the Service may be what a release relies on.
    """
    is_listed = not after.slices.pods <= after.pods
    needed = after.pods if not after.services.is_hidden else NONE if is_listed else after.proxies
    return noted(after._replace(is_promised=before.is_promised and bool(after.reached & needed)))
