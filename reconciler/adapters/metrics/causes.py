"""Which of a few causes makes a sample say nothing: a doubt is a sentence for people, and no label.

Counterpart: `reconciler.core.traffic.Window.doubt`, which words them; a test holds each of its doubts against this.
"""

from __future__ import annotations

OTHER = "other"
_WORDS = {
    "Prometheus: ": "prometheus",
    "no Envoy is connected": "no_envoy",
    "only one sample so far": "first_sample",
    "the sample is older": "sample_not_newer",
    " was not in the sample before": "envoy_new",
    " restarted": "envoy_restarted",
    " is missing": "envoy_missing",
}
"""The first that occurs in the doubt counts."""
CAUSES = (*_WORDS.values(), OTHER)


def cause_of(doubt: str) -> str:
    """One of `CAUSES`."""
    return next((cause for words, cause in _WORDS.items() if words in doubt), OTHER)
