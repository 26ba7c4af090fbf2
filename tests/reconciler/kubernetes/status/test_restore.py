"""Leadership after `zenvoy uninstall` took the Lease: not for replicas that ran then, but soon for later ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.kubernetes.client.leader_election import (
    UNINSTALLER,
    LeaderElection,
    LeaseRecord,
    LeaseTiming,
    ReadLease,
    WriteLease,
)

TERMS = LeaseTiming(duration=15, margin=5, every=2)
TAKEN = LeaseRecord("7", UNINSTALLER, 600, 4, None, 65, {})
OURS = LeaseRecord("6", "zenvoy-0", 15, 3, "10.0.0.1:18000", 65, {})


def first_write(election: LeaderElection, lease: LeaseRecord | None, begin: float, end: float) -> float | None:
    """When it would take what stays as it is, if before `end`."""
    now = begin
    while now < end:
        now = max(now, election.due(now))
        match election.act(now):
            case ReadLease():
                election.read(now, lease)
            case WriteLease():
                return now
        now += 0.5
    return None


@pytest.mark.parametrize("seen", [OURS, None], ids=["led", "there was no Lease"])
def test_uninstalled_lease_blocks_running_candidates(seen: LeaseRecord | None) -> None:
    election = LeaderElection("zenvoy-1", TERMS)
    election.read(100.0, seen)
    election.read(101.0, TAKEN)
    assert first_write(election, TAKEN, 101.0, 690.0) is None
    assert first_write(election, TAKEN, 690.0, 710.0) is not None


def test_uninstalled_lease_ends_the_term() -> None:
    election = LeaderElection("zenvoy-0", TERMS)
    election.read(100.0, None)
    write = election.act(100.0)
    assert isinstance(write, WriteLease)
    election.wrote(100.0, 100.1, write, OURS)
    assert election.valid(101.0)
    election.read(101.0, TAKEN)
    assert not election.valid(101.0)
    assert first_write(election, TAKEN, 101.0, 690.0) is None


def test_uninstalled_lease_lets_new_candidates_lead() -> None:
    election = LeaderElection("zenvoy-2", TERMS)
    at = first_write(election, TAKEN, 100.0, 700.0)
    assert at is not None
    assert 115.0 <= at < 118.0


def test_uninstalled_again_blocks_candidate() -> None:
    election = LeaderElection("zenvoy-2", TERMS)
    election.read(100.0, TAKEN)
    election.read(101.0, OURS)
    election.read(102.0, TAKEN)
    assert first_write(election, TAKEN, 102.0, 690.0) is None


def test_uninstalled_after_term_blocks_candidate() -> None:
    election = LeaderElection("zenvoy-0", TERMS)
    election.read(100.0, TAKEN)
    write = election.act(116.0)
    assert isinstance(write, WriteLease)
    election.wrote(116.0, 116.1, write, OURS)
    assert election.valid(117.0)
    election.refused(118.0)
    election.read(118.1, replace(TAKEN, version="8"))
    assert first_write(election, replace(TAKEN, version="8"), 118.1, 690.0) is None
