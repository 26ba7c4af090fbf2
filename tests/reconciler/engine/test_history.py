"""Tests of the history of transitions."""

from __future__ import annotations

from reconciler.core.record import State, Transition
from reconciler.engine.history import LAST, History


def moved(service: str, at: float, target: State = State.Waking) -> Transition:
    return Transition(service, State.ScaledToZero, "DemandSeen", target, f"{at:g} waited", at)


def test_history_returns_latest_first() -> None:
    history = History()
    first, second = moved("web", 1.0), moved("web", 2.0, State.Active)
    history.note(first)
    history.note(second)
    assert history.of("web") == (second, first)


def test_history_is_bounded_per_service() -> None:
    history = History()
    history.note(moved("db", 0.0))
    for at in range(LAST + 5):
        history.note(moved("web", float(at)))
    assert [transition.at for transition in history.of("web")] == [float(at) for at in range(LAST + 4, 4, -1)]
    assert history.of("db") == (moved("db", 0.0),)


def test_history_of_removed_service_is_empty() -> None:
    history = History()
    history.note(moved("web", 1.0))
    history.forget("web")
    history.forget("web")
    assert history.of("web") == ()
