"""The word for why a wake does not get on: one of a few, whatever the sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconciler.core.stall_reasons import IN_A_CLUSTER, OTHER, WHYS, why
from reconciler.kubernetes.client import discovery
from reconciler.kubernetes.workloads import diagnosis, wake_client

TROUBLESHOOTING = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
OF_CONDITIONS_ONLY = {"TargetUnavailable", "NotSeenYet"}
"""What a ScaledService's condition says where no sentence begins with a word."""


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("CrashLoopBackOff: container web of pod web-1 ended with exit code 1, restarted twice", "CrashLoopBackOff"),
        ('FailedMount: pod web-1: secret "web" not found', "FailedMount"),
        ("exited with code 7 after 0.2 s: cannot use port 80", "Exited"),
        ("killed by SIGKILL after 3.0 s", "Killed"),
        ("cannot be started: no such file or directory: 'serve'", "NotStarted"),
        ("waits for the end of cache, whose program has the same folder /data", "NotStarted"),
        ("started 30 s ago, but nothing listens on 127.0.0.1:18001 yet", "NotReady"),
        ("it is not ready, and nothing says why", "TimedOut"),
        ("given up: OSError(28, 'No space left on device')", OTHER),
        ("SomethingNew: pod web-1: a word that only this kubelet has", OTHER),
        ("", OTHER),
        ("42", OTHER),
    ],
)
def test_a_sentence_is_one_word(sentence: str, word: str) -> None:
    assert why(sentence) == word
    assert word in WHYS


def test_every_reason_that_troubleshooting_explains_is_known() -> None:
    page = TROUBLESHOOTING.read_text()
    of_wakes = page[page.index("## It does not wake") : page.index("## What was asked for")]

    explained = set(re.findall(r"^### (\w+)$", of_wakes, re.MULTILINE)) - OF_CONDITIONS_ONLY

    assert len(explained) > 20
    assert explained | set(diagnosis.MOUNTS) <= set(IN_A_CLUSTER)


def test_every_word_that_sentences_of_a_cluster_begin_with_is_known() -> None:
    source = "".join(Path(str(module.__file__)).read_text() for module in (wake_client, diagnosis, discovery))

    assert set(re.findall(r'f?"([A-Z][A-Za-z]{5,}): ', source)) <= set(IN_A_CLUSTER)
