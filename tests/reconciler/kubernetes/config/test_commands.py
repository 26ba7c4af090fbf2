"""Commands in annotations, and their effect."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from reconciler.core.events import Event, SleepCommanded, WakeCommanded
from reconciler.core.reasons import Problem
from reconciler.kubernetes.config import commands
from reconciler.kubernetes.config.commands import CommandController
from reconciler.kubernetes.types.objects import ObjectMeta
from reconciler.kubernetes.types.scaled_service import COMMAND_ANNOTATION, ScaledService, ScaledServiceStatus

WAKE, LATER = "wake@2026-11-23T10:00:00.000001Z", "wake@2026-11-23T10:00:00.000002Z"
SLEEP = "sleep@2026-11-23T11:00:00+01:00"


def item(value: str | None, observed: str = "") -> ScaledService:
    annotations = {COMMAND_ANNOTATION: value} if value is not None else {}
    return ScaledService(
        ObjectMeta("web", "shop", annotations=annotations), status=ScaledServiceStatus(observed_command=observed)
    )


@dataclass
class Scene:
    items: dict[str, ScaledService] = field(default_factory=dict)
    leads: bool = True
    known: bool = True
    obeyed: list[tuple[str, Event]] = field(default_factory=list)
    noted: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commands = CommandController(
            self.items, lambda: self.leads, self._obey, lambda name, value: self.noted.append((name, value))
        )

    def _obey(self, service: str, event: Event) -> bool:
        if self.known:
            self.obeyed.append((service, event))
        return self.known

    def see(self, value: str | None, observed: str = "") -> None:
        self.items["shop/web"] = item(value, observed)
        self.commands.saw("shop/web", self.items["shop/web"])

    @property
    def verbs(self) -> list[str]:
        return [event.name for _, event in self.obeyed]


@pytest.mark.parametrize(
    ("value", "event"),
    [
        (WAKE, WakeCommanded("requested by a user")),
        (SLEEP, SleepCommanded("requested by a user")),
    ],
)
def test_pending_command_valid_is_obeyed(value: str, event: Event) -> None:
    assert commands.pending_command(item(value)) == value
    scene = Scene()
    scene.see(value)
    assert scene.obeyed == [("shop/web", event)]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "wake",
        "wake@",
        "wake@now",
        "Wake@2026-11-23T10:00:00Z",
        "doze@2026-11-23T10:00:00Z",
        "wake@2026-11-23",
        "wake@2026-11-23T10:00:00",
    ],
)
def test_pending_command_invalid_reports_remedy(value: str) -> None:
    found = commands.pending_command(item(value, observed="earlier"))
    assert isinstance(found, Problem)
    assert found.reason == "BadCommand"
    assert str(found) == (
        f"metadata.annotations[zenvoy.dev/command]: {value!r} is not a command; "
        "write wake@<time> or sleep@<time>, as in wake@2026-11-23T10:00:00Z"
    )


def test_command_value_is_executed_once() -> None:
    scene = Scene()
    for value, observed in ((WAKE, ""), (WAKE, ""), (WAKE, WAKE), (LATER, WAKE), (None, LATER)):
        scene.see(value, observed)
    assert scene.verbs == ["WakeCommanded", "WakeCommanded"]
    assert scene.noted == [("shop/web", WAKE), ("shop/web", LATER)]


def test_command_executed_before_restart_is_skipped() -> None:
    scene = Scene()
    scene.see(SLEEP, SLEEP)
    assert scene.obeyed == []


def test_command_sleep_needs_the_leader() -> None:
    scene = Scene(leads=False)
    scene.see(SLEEP)
    scene.commands.again()
    assert scene.obeyed == []
    scene.leads = True
    scene.commands.lead()
    assert scene.verbs == ["SleepCommanded"]
    assert scene.noted == [("shop/web", SLEEP)]


def test_command_wake_runs_on_every_replica() -> None:
    scene = Scene(leads=False)
    scene.see(WAKE)
    scene.see(WAKE)
    assert scene.verbs == ["WakeCommanded"]
    assert scene.noted == []
    scene.leads = True
    scene.commands.lead()
    assert scene.verbs == ["WakeCommanded", "WakeCommanded"]
    assert scene.noted == [("shop/web", WAKE)]


def test_command_unrecorded_sleep_is_recorded_not_repeated() -> None:
    scene = Scene()
    scene.see(SLEEP)
    scene.commands.lead()
    assert scene.verbs == ["SleepCommanded"]
    assert scene.noted == [("shop/web", SLEEP)] * 2


def test_command_recorded_or_replaced_is_not_recorded_again() -> None:
    scene = Scene(leads=False)
    scene.see(WAKE)
    scene.see(WAKE, WAKE)
    scene.commands.lead()
    scene.see("nonsense", WAKE)
    scene.commands.lead()
    assert scene.noted == []


def test_command_waits_for_the_service() -> None:
    scene = Scene(known=False)
    scene.see(WAKE)
    assert scene.noted == []
    scene.known = True
    scene.commands.again("shop/other")
    assert scene.obeyed == []
    scene.commands.again("shop/web")
    scene.commands.again("shop/web")
    assert scene.verbs == ["WakeCommanded"]


def test_command_removed_is_not_executed() -> None:
    scene = Scene(known=False)
    scene.see(SLEEP)
    scene.see(None)
    scene.known = True
    scene.commands.again()
    assert scene.obeyed == []


def test_command_invalid_is_a_problem_until_fixed() -> None:
    scene = Scene()
    scene.see("wake")
    [(service, problem)] = scene.commands.problems.items()
    assert problem.message == "'wake' is not a command"
    assert service == "shop/web"
    scene.see(WAKE)
    assert scene.commands.problems == {}
    assert scene.verbs == ["WakeCommanded"]


def test_command_of_deleted_object_is_forgotten() -> None:
    scene = Scene()
    scene.see(WAKE)
    scene.commands.saw("shop/web", None)
    scene.see(WAKE)
    assert scene.verbs == ["WakeCommanded", "WakeCommanded"]
