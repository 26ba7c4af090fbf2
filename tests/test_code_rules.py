"""Rules about code, compared with the lists of remaining violations."""

from __future__ import annotations

import ast

import pytest

from tests.rules.check import RULES
from tests.rules.exceptions import FOLDER, compare
from tests.rules.source import PRODUCT, Module, modules


@pytest.mark.parametrize("rule", RULES)
def test_code_rule_violations_match_exceptions(rule: str) -> None:
    compare(rule, RULES[rule]())


def test_exceptions_belong_to_a_rule() -> None:
    assert {path.stem for path in FOLDER.iterdir()} <= RULES.keys()


@pytest.mark.parametrize("module", modules(*PRODUCT), ids=lambda module: module.relative)
def test_module_with_code_has_docstring(module: Module) -> None:
    assert not module.tree.body or ast.get_docstring(module.tree)


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
