"""The capture of a Service in every order of events: a breadth-first search of the states of `world.py`."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest

from reconciler.kubernetes.capture.plan import Action, Wait
from tests.reconciler.kubernetes.capture.world import (
    CAPTURE,
    GONE,
    SETTLED,
    VISIBLE,
    Slices,
    State,
    events,
    noted,
    observed,
    steps,
)

WORLDS = [("a", "p", 3), ("ab", "p", 2), ("a", "pq", 2)]
"""Names of pods and proxies, and the number of events that happen at most."""
READY_PODS, COMPANION_PODS = "controller lists pods", "controller lists pods of the companion"


class Search(NamedTuple):
    """The states that were found."""

    before: dict[State, tuple[State, str] | None]
    """A shortest way to each of them: the state before it, and the last step."""
    after: dict[State, list[State]]
    """The states to which each of them leads if nothing else happens."""

    def way(self, state: State) -> list[str]:
        """Return the steps that lead to a state."""
        found = []
        while last := self.before[state]:
            state, step = last
            found.append(step)
        return found[::-1]


@cache
def search(pods: str, proxies: str, most: int) -> Search:
    """Return all states that can be reached with that many events."""
    given = State(CAPTURE, frozenset(pods[0]), frozenset(proxies[0]))
    found = Search({noted(start): None for start in (State(), given, given._replace(pods=frozenset()))}, {})
    newest = list(found.before)
    for number in range(most + 1):
        for state in newest:  # grows
            following = list(steps(state))
            found.after[state] = [after for _, after in following]
            for step, after in following:
                if after not in found.before:
                    found.before[after] = state, step
                    newest.append(after)
        if number == most:
            break
        earlier, newest = newest, []
        for state in earlier:
            for event, after in events(state, pods, proxies):
                if after not in found.before:
                    found.before[after] = state, event
                    newest.append(after)
    return found


@pytest.fixture(params=WORLDS, ids=str)
def found(request: pytest.FixtureRequest) -> Search:
    return search(*request.param)


def test_callers_always_reach_a_pod_or_a_proxy(found: Search) -> None:
    """Make before break, in both directions, while each part may be arbitrarily late.

    Once callers reach something and everybody knows everything, they reach something at every later moment. The promise
    ends if something goes that they are led to, and holds again once everybody knows that.
    """
    assert [found.way(state) for state in found.before if state.is_promised and not state.reached] == []


def test_zenvoy_always_sees_the_pods_that_everybody_knew(found: Search) -> None:
    """Without known pods, an awake service would count as one that has lost its endpoints."""
    seen = {state: state.slices.pods | state.slices.companion_pods for state in found.before}
    assert [found.way(state) for state, pods in seen.items() if not state.known <= pods] == []


def test_bypass_counts_as_possible_while_slices_have_pods(found: Search) -> None:
    """Unless the selector was overwritten, and the informer has not reported that yet."""
    wrong = [state for state in found.before if state.callers == SETTLED and state.slices.pods and state.is_current]
    assert [found.way(state) for state in wrong] == []
    early = [state for state in found.before if (state.wish, state.step, state.callers) == (CAPTURE, None, VISIBLE)]
    assert [found.way(state) for state in early] == [], "the capture is not complete"


def test_capture_and_release_complete_from_every_state(found: Search) -> None:
    """If nothing else happens, every order of the remaining steps ends, and ends well."""
    is_done: dict[State, bool] = {}
    for start in found.after:
        path = [start]
        while path:
            state = path[-1]
            if state not in is_done:
                is_done[state] = False
            rest = [after for after in found.after[state] if not is_done.get(after, False)]
            assert not any(after in is_done for after in rest), f"it never ends: {found.way(state)}"
            if rest:
                path.append(rest[0])
            else:
                is_done[path.pop()] = True
    for state in found.after:
        if not found.after[state]:
            assert ends_well(state), found.way(state)


def ends_well(state: State) -> bool:
    """Return whether a state may be the last one."""
    if isinstance(state.step, Action):
        return False
    uid, pods, proxies = state.services.uid, state.pods, state.proxies
    leads_to_pods = not state.services.is_hidden and state.slices.pods == pods
    own = state.slices.own
    if state.wish == CAPTURE and state.listens and proxies:
        captured = Slices(frozenset(), pods, (uid, proxies))
        return (state.services, state.slices, state.step, state.callers) == ((uid, True, uid), captured, None, SETTLED)
    if state.wish == CAPTURE and pods:
        return leads_to_pods and not (own and own[1])
    if state.wish in (CAPTURE, GONE) or pods:
        has_rest = state.services.companion is not None or own
        return state.wish == CAPTURE or (leads_to_pods and not has_rest and state.step is None)
    if not state.services.is_hidden and own is None:
        return state.step is None
    return state.step == Wait("no pod is ready yet") and (not state.listens or (own is not None and own[1] == proxies))


# Sequences that were faults


def after(*names: str, pods: str = "a", proxies: str = "p") -> State:
    """Return the state after these steps and events."""
    state = State(CAPTURE, frozenset(pods), frozenset(proxies))
    for name in names:
        following = dict([*steps(state), *events(state, "a", "pq")])
        assert name in following, f"{name!r} is none of {sorted(following)}"
        state = following[name]
    return state


LISTED = (Action.WRITE_COMPANION, "Services seen", READY_PODS, COMPANION_PODS, Action.WRITE_SLICES, "slices seen")
ASLEEP = (Action.WRITE_COMPANION, "Services seen", Action.WRITE_SLICES, "slices seen", Action.HIDE_PODS)
CAPTURED = (*LISTED, Action.HIDE_PODS, READY_PODS, "Services seen", "slices seen")


def offered(state: State) -> set[str]:
    return {name for name, _ in steps(state)}


@pytest.mark.parametrize("event", ["capture: none", "ScaledService deleted"])
def test_release_of_overwritten_selector_asleep_waits(event: str) -> None:
    state = after(*ASLEEP, "selector overwritten", "Services seen", event, pods="")
    assert state.step == Wait("no pod is ready yet")
    state = after(*ASLEEP, "selector overwritten", "Services seen", event, "pod a is ready", READY_PODS, pods="")
    assert Action.DELETE_SLICES in offered(dict(steps(state))["slices seen"])


def test_release_before_hiding_is_seen_keeps_the_proxies() -> None:
    state = after(*LISTED, Action.HIDE_PODS, READY_PODS, "capture: none")
    assert state.step is Action.DELETE_SLICES
    assert offered(state) == {"Services seen", "slices seen"}
    assert Action.SHOW_PODS in offered(dict(steps(state))["Services seen"])


def test_capture_before_deletion_is_seen_keeps_the_pods() -> None:
    state = after(*LISTED, "capture: none", Action.DELETE_SLICES, "capture: proxy")
    assert state.step is Action.HIDE_PODS
    assert offered(state) == {"slices seen"}


def test_capture_with_silent_proxy_keeps_the_pods() -> None:
    state = after(*LISTED, "listener goes", "listener returns")
    assert state.step is Action.HIDE_PODS
    assert offered(state) == {"proxy p accepts"}


def test_capture_without_listener_leads_to_pods_only() -> None:
    state = after(*CAPTURED, "listener goes", Action.SHOW_PODS, READY_PODS, "Services seen", "slices seen")
    assert state.step is Action.DELETE_SLICES


def test_release_asleep_follows_the_proxies() -> None:
    state = after(*ASLEEP, "Services seen", "capture: none", "proxy p goes", "proxy q is ready", pods="")
    assert not state.reached
    assert dict(steps(state))[Action.WRITE_SLICES].reached == {"q"}


def test_release_without_companion_shows_the_pods() -> None:
    state = after(*CAPTURED, "capture: none")
    services = state.services._replace(companion=None)
    state = state._replace(services=services, seen_services=services, seen_slices=Slices(own=state.slices.own))
    assert not observed(services, state.seen_slices).companion_pods
    assert state.step is Action.SHOW_PODS
