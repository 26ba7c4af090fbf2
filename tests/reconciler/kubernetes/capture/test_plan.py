"""The steps of a capture: from every state, alone, to the end, and at no time without an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reconciler.kubernetes.capture.plan import (
    Action,
    CaptureObjects,
    RequiredObjects,
    Wait,
    next_to_capture,
    next_to_release,
    without_proxy,
)

PODS = frozenset({"10.0.0.1", "10.0.0.2"})
NONE = frozenset[str]()
COMPANION: dict[str, Any] = {"kind": "Service"}
SLICES: dict[str, Any] = {"web-ipv4": {"endpoints": ["proxy"]}}
WANTED = RequiredObjects(COMPANION, SLICES, has_proxy=True)
NO_PROXY = RequiredObjects(COMPANION, {"web-ipv4": {"endpoints": []}}, has_proxy=False)


def done(seen: CaptureObjects, action: Action, wanted: RequiredObjects) -> CaptureObjects:
    """Return what is observed after an action."""
    match action:
        case Action.WRITE_COMPANION:
            return replace(seen, companion=wanted.companion)
        case Action.WRITE_SLICES:
            return replace(seen, slices=wanted.slices)
        case Action.HIDE_PODS:
            return replace(seen, is_hidden=True)
        case Action.SHOW_PODS:
            return replace(seen, is_hidden=False)
        case Action.DELETE_SLICES:
            return replace(seen, slices=None)
        case Action.DELETE_COMPANION:
            return replace(seen, companion=None, companion_pods=NONE)


def settled(seen: CaptureObjects, pods: frozenset[str]) -> CaptureObjects:
    """Return what is observed once Kubernetes has listed the pods everywhere."""
    return replace(
        seen,
        pods=NONE if seen.is_hidden else pods,
        companion_pods=pods if seen.companion is not None else NONE,
    )


def steps_from(seen: CaptureObjects, next_step: Callable[[CaptureObjects], Action | Wait | None]) -> list[str]:
    """Return all steps of an awake service, and the reasons of its waits."""
    steps = []
    while step := next_step(seen):
        steps.append(step.reason if isinstance(step, Wait) else step)
        seen = settled(seen, PODS) if isinstance(step, Wait) else done(seen, step, WANTED)
    return steps


def endpoints(seen: CaptureObjects, pods: frozenset[str]) -> set[str]:
    """Return what a caller of the Service can reach: by the slices that are in force, whether new or old."""
    proxies = {each for body in (seen.slices or {}).values() for each in body["endpoints"]}
    return proxies | set(seen.pods & pods)


states = st.builds(
    CaptureObjects,
    is_hidden=st.booleans(),
    companion=st.sampled_from([None, COMPANION, {"kind": "Service", "old": True}]),
    slices=st.sampled_from([None, SLICES, {"web-ipv4": {"endpoints": ["gone"]}}]),
)


@given(states, st.booleans(), st.booleans())
def test_capture_from_any_state_ends_and_always_has_an_endpoint(
    seen: CaptureObjects, awake: bool, captured: bool
) -> None:
    # Without the companion, which a person deleted, its pods are not known before they are shown.
    assume(captured or not seen.is_hidden or seen.companion is not None)
    pods = PODS if awake else NONE
    seen = settled(seen, pods)
    steps: list[Action] = []
    while step := next_to_capture(seen, WANTED) if captured else next_to_release(seen, may_wait=False):
        had = endpoints(seen, pods)
        if isinstance(step, Wait):
            after = settled(seen, pods)
            assert after != seen, f"it waits for nothing: {step.reason}"
        else:
            steps.append(step)
            after = done(seen, step, WANTED)
        assert len(steps) < 10, steps
        if had and awake:
            assert endpoints(after, pods), f"{step} leaves a caller without an endpoint"
        seen = after
    assert seen.is_hidden is captured
    assert endpoints(seen, pods) == ({"proxy"} if captured else set(pods))
    assert (seen.companion is not None) is captured


def test_capture_of_an_awake_service_makes_before_it_breaks() -> None:
    seen = CaptureObjects(is_hidden=False, pods=PODS)
    assert steps_from(seen, lambda seen: next_to_capture(seen, WANTED)) == [
        Action.WRITE_COMPANION,
        "Kubernetes has not listed its pods for the companion Service yet",
        Action.WRITE_SLICES,
        Action.HIDE_PODS,
        "Kubernetes has not taken its pods out of the Service yet",
    ]


def test_release_of_an_awake_service_makes_before_it_breaks() -> None:
    seen = CaptureObjects(True, NONE, PODS, COMPANION, SLICES)
    assert steps_from(seen, lambda seen: next_to_release(seen, may_wait=True)) == [
        Action.SHOW_PODS,
        "Kubernetes has not listed its pods for the Service yet",
        Action.DELETE_SLICES,
        Action.DELETE_COMPANION,
    ]


@pytest.mark.parametrize(
    ("pods", "step"), [(PODS, Action.SHOW_PODS), (NONE, Action.WRITE_SLICES)], ids=["awake", "asleep"]
)
def test_capture_without_ready_proxy_gives_pods_back(pods: frozenset[str], step: Action) -> None:
    seen = CaptureObjects(True, NONE, pods, COMPANION, SLICES)
    assert next_to_capture(seen, NO_PROXY) is step
    after = replace(seen, is_hidden=not pods, pods=pods, slices=NO_PROXY.slices)
    assert isinstance(next_to_capture(after, NO_PROXY), Wait)


def test_release_asleep_waits_for_pods_that_are_expected() -> None:
    seen = CaptureObjects(True, NONE, NONE, COMPANION, SLICES)
    assert next_to_release(seen, may_wait=True) == Wait("no pod is ready yet")
    assert next_to_release(seen, may_wait=False) is Action.SHOW_PODS


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        (CaptureObjects(True, NONE, PODS, COMPANION, SLICES), Action.SHOW_PODS),
        (CaptureObjects(True, NONE, NONE, COMPANION, SLICES), Wait("why")),
        (CaptureObjects(True, PODS, NONE, COMPANION, SLICES), Wait("why")),
        (CaptureObjects(False, NONE, NONE, COMPANION, SLICES), Wait("why")),
        (CaptureObjects(False, frozenset({"10.0.0.1"}), PODS, COMPANION, SLICES), Wait("why")),
        (CaptureObjects(False, PODS, PODS, COMPANION, SLICES), Action.DELETE_SLICES),
        (CaptureObjects(False, PODS, PODS, COMPANION), Wait("why")),
    ],
    ids=["awake", "asleep", "pods are leaving", "shown asleep", "some pods are shown", "pods are shown", "done"],
)
def test_capture_without_listener_leads_to_the_pods_alone(seen: CaptureObjects, step: Action | Wait) -> None:
    assert without_proxy(seen, "why") == step


def test_capture_and_release_wait_until_all_pods_are_listed() -> None:
    some = frozenset({"10.0.0.1"})
    assert isinstance(next_to_capture(CaptureObjects(False, PODS, some, COMPANION, SLICES), WANTED), Wait)
    for pods in (NONE, some):
        step = next_to_release(CaptureObjects(False, pods, PODS, COMPANION, SLICES), may_wait=True, required=WANTED)
        assert step == Wait("Kubernetes has not listed its pods for the Service yet")


def test_capture_without_proxy_creates_no_empty_slices() -> None:
    assert isinstance(next_to_capture(CaptureObjects(False, PODS, PODS, COMPANION), NO_PROXY), Wait)


def test_captured_service_follows_the_proxies_while_pods_leave() -> None:
    seen = CaptureObjects(True, PODS, NONE, COMPANION, {"web-ipv4": {"endpoints": ["gone"]}})
    assert next_to_capture(seen, WANTED) is Action.WRITE_SLICES
