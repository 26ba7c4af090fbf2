"""Assignment of ports to captured Services."""

from __future__ import annotations

import msgspec

from reconciler.kubernetes.capture.ports import PortAssignments
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceStatus
from tests.reconciler.kubernetes.objects import scaled


def item(name: str, port: int = 0, listen: int | None = None) -> ScaledService:
    made = scaled(f"listen: {listen}" if listen else "", name=name)
    return msgspec.structs.replace(made, status=ScaledServiceStatus(capture_port=port))


def test_each_service_gets_a_port_of_its_own_until_none_is_left() -> None:
    ports = PortAssignments(range(10, 12))
    for name in ("a", "b", "c"):
        ports.assign(item(name))
    assert [ports.assigned(f"shop/{name}") for name in ("a", "b", "c")] == [10, 11, 0]
    ports.saw("shop/a", None)
    ports.assign(item("c"))
    assert ports.assigned("shop/c") == 10


def test_port_in_a_status_is_kept_and_not_assigned_again() -> None:
    ports = PortAssignments(range(10, 12))
    ports.saw("shop/b", item("b", 10))
    ports.assign(item("a"))
    assert (ports.assigned("shop/a"), ports.assigned("shop/b")) == (11, 10)


def test_assignment_outlives_a_status_that_does_not_show_it_yet() -> None:
    ports = PortAssignments(range(10, 12))
    ports.assign(item("a"))
    ports.saw("shop/a", item("a"))
    assert ports.assigned("shop/a") == 10


def test_port_of_another_service_or_range_is_not_taken_over() -> None:
    ports = PortAssignments(range(10, 12))
    ports.saw("shop/a", item("a", 10))
    ports.saw("shop/b", item("b", 10))
    ports.saw("shop/c", item("c", 99))
    assert (ports.assigned("shop/b"), ports.assigned("shop/c")) == (0, 0)
    ports.saw("shop/b", None)
    assert ports.assigned("shop/a") == 10, "what it never had is not freed"


def test_service_with_a_listen_needs_no_assignment() -> None:
    ports = PortAssignments(range(10, 12))
    ports.assign(item("a", listen=5432))
    assert (ports.port(item("a", listen=5432)), ports.assigned("shop/a")) == (5432, 0)
