from __future__ import annotations

from tproxy.io.descriptors import Budget


def test_budget_full_of_held_connections_allows_dials() -> None:
    budget = Budget(limit=1000)
    budget.used = 1000 - budget.headroom
    assert budget.admits_held()
    budget.used += 1
    assert not budget.admits_held()
    assert budget.dials_allowed() == budget.headroom - 1
