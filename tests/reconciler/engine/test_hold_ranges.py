"""Hold addresses, also as read from a status into which anything may have been written."""

from __future__ import annotations

import pytest

from reconciler.engine.hold_addresses import AnyIp, Tproxy

ANYIP, TPROXY = AnyIp(18001), Tproxy(range(20000, 20004))


@pytest.mark.parametrize("hold", [ANYIP, TPROXY], ids=["anyip", "tproxy"])
def test_hold_address_of_index_maps_back_to_it(hold: AnyIp | Tproxy) -> None:
    assert [hold.index(hold.address(index)) for index in range(4)] == [0, 1, 2, 3]
    assert hold.address(hold.size + 2) == hold.address(2)


@pytest.mark.parametrize(
    "address",
    [
        *("", ":", "127.x:18001", "127.0.0.300:18001", "127.64.0.1:http", "127.64.0.1", "127.64.0.1:99", "[::1]:18001"),
        *("127.0.0.1:http", "127.0.0.1:", "127.0.0.1:²", "127.0.0.1:19999", "127.0.0.1:20004"),
        "127.0.0.1:" + "2" * 5000,
    ],
)
def test_hold_address_outside_range_has_no_index(address: str) -> None:
    for hold in (ANYIP, TPROXY):
        assert hold.index(address) is None
