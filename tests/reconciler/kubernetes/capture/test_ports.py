"""Assignment of ports to captured Services."""

from __future__ import annotations

import msgspec

from reconciler.kubernetes.capture.controller import PortAssignments
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceStatus
from tests.reconciler.kubernetes.objects import scaled


def item(name: str, port: int = 0) -> ScaledService:
    return msgspec.structs.replace(scaled(name=name), status=ScaledServiceStatus(capture_port=port))


def test_each_service_gets_a_port_of_its_own_until_none_is_left() -> None:
    ports = PortAssignments(range(10, 12))
    for name in ("a", "b", "c"):
        ports.assign(name)
    assert [ports.assigned(name) for name in ("a", "b", "c")] == [10, 11, 0]
    ports.saw("a", None)
    ports.assign("c")
    assert ports.assigned("c") == 10


def test_freed_port_is_reused_as_late_as_possible() -> None:
    ports = PortAssignments(range(10, 13))
    ports.assign("a")
    ports.free("a")
    for name in ("b", "c", "d"):
        ports.assign(name)
    assert [ports.assigned(name) for name in ("b", "c", "d")] == [11, 12, 10]


def test_port_after_a_restart_follows_those_in_use() -> None:
    ports = PortAssignments(range(10, 13))
    ports.saw("a", item("a", 11))
    ports.assign("b")
    assert ports.assigned("b") == 12


def test_port_that_the_proxies_listen_on_is_not_assigned() -> None:
    ports = PortAssignments(range(10, 13))
    ports.assign("a", in_use={10})
    assert ports.assigned("a") == 11


def test_port_in_a_status_is_kept_and_not_assigned_again() -> None:
    ports = PortAssignments(range(10, 12))
    ports.saw("b", item("b", 10))
    ports.assign("a")
    ports.assign("b")
    assert (ports.assigned("a"), ports.assigned("b")) == (11, 10)


def test_assignment_outlives_a_status_that_does_not_show_it_yet() -> None:
    ports = PortAssignments(range(10, 12))
    ports.assign("a")
    ports.saw("a", item("a"))
    assert ports.assigned("a") == 10


def test_port_of_another_service_or_range_is_not_taken_over() -> None:
    ports = PortAssignments(range(10, 12))
    ports.saw("a", item("a", 10))
    ports.saw("b", item("b", 10))
    ports.saw("c", item("c", 99))
    assert (ports.assigned("b"), ports.assigned("c")) == (0, 0)
    ports.saw("b", None)
    assert ports.assigned("a") == 10, "what it never had is not freed"
