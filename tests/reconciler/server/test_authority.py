"""Replacement of certificates and their authority; all files in use stay trusted meanwhile."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from reconciler.core.access import PROXY, RECONCILER
from reconciler.server.credentials import x509
from reconciler.server.credentials.authority import (
    AUTHORITY,
    AUTHORITY_SECONDS,
    CERTIFICATE,
    CERTIFICATE_SECONDS,
    DAY_SECONDS,
    KEY,
    Authority,
    Step,
    authority_step,
    certificate,
    contents,
    current,
    dns_names,
    is_due,
    issued,
    material,
    stored,
)
from reconciler.server.credentials.material import Material
from reconciler.server.credentials.x509 import Subject, Validity

NOW = 1_800_000_000.0
SERVER = Subject("reconciler", RECONCILER.uri, dns_names("zenvoy-reconciler.zenvoy-system.svc"), serves=True)
CLIENT = Subject("proxy", PROXY.uri)


def lasting(days_left: float, days_old: float = 100.0) -> Validity:
    return Validity(NOW - days_old * DAY_SECONDS, NOW + days_left * DAY_SECONDS)


@pytest.mark.parametrize(
    ("active", "successor", "step"),
    [
        (None, None, Step.CREATE),
        (None, lasting(700), Step.PROMOTE),
        (lasting(-1), None, Step.CREATE),
        (lasting(-1), lasting(-1), Step.CREATE),
        (lasting(-1), lasting(700, days_old=0), Step.PROMOTE),
        (lasting(181), None, Step.KEEP),
        (lasting(180), None, Step.PREPARE),
        (lasting(180), lasting(-1), Step.PREPARE),
        (lasting(91), lasting(700), Step.KEEP),
        (lasting(90), lasting(700), Step.PROMOTE),
        (lasting(1), lasting(700, days_old=0), Step.KEEP),
    ],
)
def test_authority_step_follows_time_left(active: Validity | None, successor: Validity | None, step: Step) -> None:
    assert authority_step(active, successor, NOW) is step


@pytest.mark.parametrize(("days_old", "due"), [(0, False), (59, False), (60, True), (91, True), (-1, True)])
def test_certificate_is_due_after_two_thirds(days_old: float, due: bool) -> None:
    since = NOW - days_old * DAY_SECONDS
    assert is_due(Validity(since, since + CERTIFICATE_SECONDS), NOW) is due


def test_stored_returns_what_data_contains() -> None:
    made = current(None, NOW)
    assert stored(made.data()) == made
    prepared = current(made, NOW + AUTHORITY_SECONDS - 170 * DAY_SECONDS)
    assert prepared.successor is not None
    assert stored(prepared.data()) == prepared


@pytest.mark.parametrize("wrong", [{}, {KEY: b"none"}, {CERTIFICATE: b"none"}, {CERTIFICATE: b""}])
def test_stored_of_unusable_data_is_none(wrong: dict[str, bytes]) -> None:
    assert stored({**current(None, NOW).data(), **wrong} if wrong else {}) is None


@pytest.mark.parametrize("algorithm", ["ed25519", "rsa:2048", "ec"])
def test_stored_authority_of_openssl_is_used_or_replaced(tmp_path: Path, algorithm: str) -> None:
    """A user may have stored an authority of any kind: none may stop the reconcilers."""
    more = ["-pkeyopt", "ec_paramgen_curve:prime256v1"] if algorithm == "ec" else []
    files = ("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt"))
    made = ["openssl", "req", "-x509", "-newkey", algorithm, *more, "-nodes", "-days", "999", "-subj", "/CN=a", *files]
    subprocess.run(made, check=True, capture_output=True)
    data = {CERTIFICATE: (tmp_path / "crt").read_bytes(), KEY: (tmp_path / "key").read_bytes(), AUTHORITY: b"none"}
    found = stored(data)
    assert (found is None) == (algorithm == "ed25519")
    signed = issued(None, current(found, time.time()), CLIENT, time.time())
    assert x509.read(signed.certificate).uris == (PROXY.uri,)


def test_stored_certificate_that_may_not_sign_is_none() -> None:
    leaf = issued(None, current(None, NOW), CLIENT, NOW)
    assert stored({CERTIFICATE: leaf.certificate, KEY: leaf.key, AUTHORITY: leaf.authority}) is None


def test_stored_key_of_another_pair_is_none() -> None:
    assert stored({**current(None, NOW).data(), KEY: current(None, NOW).data()[KEY]}) is None


def test_current_within_period_changes_nothing() -> None:
    made = current(None, NOW)
    assert current(made, NOW + 500 * DAY_SECONDS) is made


def test_issued_keeps_what_is_usable() -> None:
    made = current(None, NOW)
    first = issued(None, made, CLIENT, NOW)
    assert issued(material(contents(first)), made, CLIENT, NOW + 50 * DAY_SECONDS) == first
    assert issued(first, made, CLIENT, NOW + 70 * DAY_SECONDS).certificate != first.certificate


@pytest.mark.parametrize("wrong", ["role", "authority", "key", "bytes"])
def test_issued_replaces_what_is_unusable(wrong: str) -> None:
    made, other = current(None, NOW), current(None, NOW)
    before = issued(None, other if wrong == "authority" else made, SERVER if wrong == "role" else CLIENT, NOW)
    if wrong == "key":
        before = Material(before.certificate, issued(None, made, CLIENT, NOW).key, before.authority)
    if wrong == "bytes":
        before = Material(b"-----BEGIN", before.key, before.authority)
    found = issued(before, made, CLIENT, NOW)
    assert found.certificate != before.certificate
    assert x509.is_signed_by(found.certificate, made.active.certificate)


def test_issued_roles_differ_in_names_and_purposes() -> None:
    made = current(None, NOW)
    server, client = (x509.read(issued(None, made, one, NOW).certificate) for one in (SERVER, CLIENT))
    assert (server.uris, server.dns, server.serves) == ((RECONCILER.uri,), SERVER.dns, True)
    assert (client.uris, client.dns, client.serves) == ((PROXY.uri,), (), False)


def test_certificate_never_outlives_its_authority() -> None:
    made = current(None, NOW)
    late = certificate(made, CLIENT, NOW + AUTHORITY_SECONDS - DAY_SECONDS)
    assert x509.read(late.certificate).validity.until == made.validity.until


def test_rotation_files_of_three_months_are_always_trusted() -> None:
    """Four years, day by day: a peer whose files are up to 90 days old and the newest peer accept each other."""
    history: list[tuple[Authority, Material]] = []
    found: Authority | None = None
    server: Material | None = None
    signers = set()
    for day in range(0, 4 * 365, 10):
        now = NOW + day * DAY_SECONDS
        found = current(found, now)
        server = issued(server, found, SERVER, now)
        client = certificate(found, CLIENT, now)
        signers.add(found.active.certificate)
        history = [*history[-9:], (found, client)]
        trusted = x509.split(server.authority)
        for _, old in history:
            assert x509.read(old.certificate).validity.until >= now
            assert any(x509.is_signed_by(old.certificate, one) for one in trusted)
            assert any(x509.is_signed_by(server.certificate, one) for one in x509.split(old.authority))
        assert x509.read(server.certificate).validity.until - now >= 29 * DAY_SECONDS
        assert all(x509.read(one).validity.until > now for one in trusted)
        assert len(trusted) <= 2
    assert len(signers) == 3


def test_authority_is_replaced_when_expired_and_not_trusted() -> None:
    made = current(None, NOW)
    later = current(made, NOW + AUTHORITY_SECONDS + DAY_SECONDS)
    assert later.active != made.active
    assert x509.split(later.data()[AUTHORITY]) == (later.active.certificate,)


def test_dns_names_cover_forms_of_a_service() -> None:
    assert dns_names("web.shop.svc") == ("web.shop.svc", "web.shop", "web", "web.shop.svc.cluster.local")
    assert dns_names("web.shop.svc", "example.org")[-1] == "web.shop.svc.example.org"
    assert dns_names("zenvoy.example") == ("zenvoy.example",)
