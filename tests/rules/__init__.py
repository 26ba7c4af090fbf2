"""Helpers and data of the project rules that the `tests/test_*_rules.py` files enforce."""
