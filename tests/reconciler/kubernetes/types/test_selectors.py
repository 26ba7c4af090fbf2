"""Selectors as the scale subresource writes them."""

from __future__ import annotations

import pytest

from reconciler.kubernetes.types.selectors import compile_selector, selector_of

WEB = {"app": "web", "tier": "front", "example.com/replicas": "3"}


@pytest.mark.parametrize(
    "selector",
    [
        "app=web",
        "app==web",
        "app=web,tier=front",
        "tier in (back,front)",
        "tier in (front),app=web",
        "tier notin (back)",
        "canary notin (yes)",
        "app",
        "!canary",
        "app!=api",
        "canary!=yes",
        "example.com/replicas>2",
        "example.com/replicas<4,app=web",
    ],
)
def test_selector_matching_labels_match(selector: str) -> None:
    assert compile_selector(selector)(WEB)


@pytest.mark.parametrize(
    "selector",
    [
        "app=api",
        "app=web,tier=back",
        "tier in (back)",
        "tier notin (front,back)",
        "canary",
        "!app",
        "app!=web",
        "example.com/replicas>3",
        "app>1",
        "canary in ()",
        "app=",
        "",
        "app=web,(",
    ],
)
def test_selector_other_labels_do_not_match(selector: str) -> None:
    assert not compile_selector(selector)(WEB)


def test_selector_of_service_is_compilable() -> None:
    assert selector_of({"tier": "front", "app": "web"}) == "app=web,tier=front"
    assert compile_selector(selector_of({"tier": "front", "app": "web"}))(WEB)
