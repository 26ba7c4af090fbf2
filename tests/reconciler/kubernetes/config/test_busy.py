"""The annotation with which an application calls itself busy, and the mistakes of a busy check."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from reconciler.core.reasons import Reason
from reconciler.kubernetes.config.busy import busy_until
from reconciler.kubernetes.config.resolve import ClusterConfig, resolve
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.scaled_service import BUSY_UNTIL_ANNOTATION, BusyCheck
from tests.reconciler.kubernetes.objects import scaled, service

TEN = datetime(2026, 11, 23, 10, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-23T10:00:00Z", TEN),
        ("2026-11-23T10:00:00.5Z", TEN + 0.5),
        ("2026-11-23T12:30:00+02:30", TEN),
    ],
)
def test_annotation_with_a_time_is_read(text: str, at: float) -> None:
    found = busy_until(scaled(annotations={BUSY_UNTIL_ANNOTATION: text}), service())
    assert found and (found.at, found.blocker.code) == (at, Reason.BUSY_UNTIL)
    assert found.blocker.message == f"zenvoy.dev/busy-until: {text}"


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2026-11-23T10:00:00", "2026-11-23", "2026-13-23T10:00:00Z", "1h", "9" * 5000]
)
def test_annotation_without_a_time_keeps_awake(text: str) -> None:
    found = busy_until(scaled(annotations={BUSY_UNTIL_ANNOTATION: text}), None)
    assert found and (found.at, found.blocker.code) == (float("inf"), Reason.BAD_ANNOTATION)
    assert len(found.blocker.message) < 300


def test_later_of_two_annotations_counts() -> None:
    early, late = ({BUSY_UNTIL_ANNOTATION: f"2026-11-23T{hour}:00:00Z"} for hour in ("09", "10"))
    for one, other in ((early, late), (late, early)):
        found = busy_until(scaled(annotations=one), service(annotations=other))
        assert found and found.at == TEN


def test_object_without_annotation_is_not_busy() -> None:
    assert busy_until(scaled(), service()) is None
    assert busy_until(None, None) is None


def test_check_is_resolved() -> None:
    found = resolve(scaled("busy: {http: /busy, port: 8081}"), service(), ClusterConfig())
    assert isinstance(found, ServiceConfig)
    assert found.spec.has_busy_check
    assert found.busy == BusyCheck("/busy", 8081)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("busy: {}", "spec.busy.http: required for a busy check; set for example busy.http: /busy"),
        (
            'busy: {http: "/a b"}',
            "spec.busy.http: '/a b' is not a valid path; start it with /, without spaces, for example /busy",
        ),
        (
            'busy: {http: "/a\\r\\nX: y"}',
            "spec.busy.http: '/a\\r\\nX: y' is not a valid path; start it with /, without spaces, for example /busy",
        ),
        (
            "busy: {http: /busy, port: 0}",
            "spec.busy.port: 0 is not a number from 1 to 65535; use for example 80",
        ),
    ],
)
def test_check_with_a_mistake_is_refused(spec: str, problem: str) -> None:
    found = resolve(scaled(spec), service(), ClusterConfig())
    assert not isinstance(found, ServiceConfig)
    assert [str(one) for one in found] == [problem]
