"""Rules about code, compared with the lists of remaining violations."""

from __future__ import annotations

import ast

import pytest

from tests.rules.check import RULES
from tests.rules.exceptions import FOLDER, compare
from tests.rules.source import PRODUCT, modules


@pytest.mark.parametrize("rule", RULES)
def test_code_rule_violations_match_exceptions(rule: str) -> None:
    compare(rule, RULES[rule]())


def test_exceptions_belong_to_a_rule() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} <= RULES.keys()


def test_modules_with_code_have_docstrings() -> None:
    lacking = [
        module.relative for module in modules(*PRODUCT) if module.tree.body and not ast.get_docstring(module.tree)
    ]
    assert not lacking


def test_module_name_says_something() -> None:
    assert not {"utils", "util", "helpers", "manager", "common", "misc"} & {
        module.path.stem for module in modules(*PRODUCT)
    }


def test_except_names_the_error() -> None:
    bare = [
        f"{module.relative}:{node.lineno}"
        for module in modules(*PRODUCT)
        for node in module.nodes
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not bare
