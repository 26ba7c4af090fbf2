"""The services behind Envoy's rejections of what many services share.

Sans-IO. A rejected resource that belongs to one service, such as its cluster, is attributed to that service. Of a
shared resource Envoy keeps the last good version, and an inquiry finds the rejected parts: it tries parts in a listener
without traffic, until Envoy accepts the rest. The resource does not change meanwhile, and is then served without them.

No Envoy decides for the others. A part that one of them accepts is not rejected, so an inquiry waits for the answers of
all, within a bounded time. It ends without the answer of the Envoy that rejected the resource. Parts that the only
Envoy rejected are tried at the next one that connects, and served again if that one accepts them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

from xds import names
from xds.ads.subscription import Subscription
from xds.names import LDS
from xds.resources.selection import LONGEST_MESSAGE
from xds.resources.snapshot import Change, Snapshot
from xds.resources.translation import Parts, SharedResource

_RULE = re.compile(r"Proto constraint validation failed \((.*)\)")
CONFLICT = "Envoy accepts it alone, but not beside the other services"
Question = tuple[str, ...]
"""Services whose parts are tried together."""
Search = Generator[Question, str | None, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An Envoy's answer to one response."""

    type_url: str
    versions: Mapping[str, str]
    """The resources of the response, with their versions."""
    message: str | None = None
    """Envoy's message if it rejected the response."""
    blamed: tuple[str, ...] = ()
    """The rejected resources, as far as they are known."""
    is_final: bool = True
    """False if a rejected response will be sent again in smaller parts."""


def search(known: Sequence[str], suspects: Sequence[str]) -> Search:
    """Find the services whose parts are rejected; return Envoy's message for each.

    Yields questions, and receives Envoy's message for each, or None if it accepts. The parts of `known` were accepted
    before. Needs about log2(n) questions for each service that it finds. Finds none if all are accepted together, or if
    each of several is rejected, because then the cause is another one.
    """
    answers: dict[Question, str | None] = {}

    def ask(*services: str) -> Generator[Question, str | None, str | None]:
        if services not in answers:
            answers[services] = yield services
        return answers[services]

    if (yield from ask(*known, *suspects)) is None:
        return {}
    if not suspects or (known and (yield from ask(*known)) is not None):
        known, suspects = (), (*known, *suspects)  # it was another Envoy that accepted them
    accepted, found = list(known), dict[str, str]()
    groups = _halves(suspects)
    while groups:
        group = groups.pop()
        message = yield from ask(*accepted, *group)
        if message is None:
            accepted += group
        elif len(group) > 1:
            groups += _halves(group)
        else:
            # Tried alone, so that the message is about this service only.
            alone = yield from ask(*group)
            found[group[0]] = CONFLICT if alone is None else reason(alone)
    return found if accepted or len(found) == 1 else {}


def reason(message: str, resource: str = names.TRIAL) -> str:
    """Return Envoy's error for a resource, without the resource's name."""
    if rule := _RULE.search(message):
        return rule[1].rpartition(" | caused by ")[2][:LONGEST_MESSAGE]
    text = re.split(rf"{re.escape(resource)}: |'envoy://{resource}/': ", message)[-1]
    return text.strip()[:LONGEST_MESSAGE]


def _halves(group: Sequence[str]) -> list[Question]:
    """Split a group; the first half, which is tried first, comes last."""
    middle = (len(group) + 1) // 2
    return [half for half in (tuple(group[middle:]), tuple(group[:middle])) if half]


Others = Callable[[str, str], Iterable[Subscription]]
"""Return the subscriptions to a type of all Envoys except the one with this node id."""
LATE = 2
"""Calls of `overdue` after which an inquiry no longer waits for an answer."""


@dataclass(slots=True)
class _Inquiry:
    """One search, at the Envoy that rejected the resource."""

    node: str
    kind: SharedResource
    tried: Mapping[str, Parts]
    search: Search | None
    """None for a review: one question, whether this Envoy accepts the parts that the only Envoy before it rejected."""
    is_answered: bool = False
    answer: str | None = None
    """That Envoy's message if it rejected the listener."""
    age: int = 0
    """Calls of `overdue` since the last question."""


class Attribution:
    """Inquiries into rejected shared resources, one after the other."""

    def __init__(self, snapshot: Snapshot, others: Others = lambda *_: ()) -> None:
        self._snapshot, self._others = snapshot, others
        self._inquiry: _Inquiry | None = None
        self._waiting: dict[tuple[str, SharedResource], int] = {}
        """Rejections without an inquiry so far, with the calls of `overdue` since."""
        self._mute: set[str] = set()
        """Envoys that did not answer a question: no inquiry is made at them until they reconnect."""
        self._sole: dict[SharedResource, str] = {}
        """The Envoys that were the only one when they rejected parts that are left out."""
        self._reviews: dict[tuple[str, SharedResource], None] = {}
        """Envoys that have connected since, at which those parts are to be tried."""

    @property
    def is_waiting(self) -> bool:
        """Return whether `overdue` must be called."""
        return self._inquiry is not None or bool(self._waiting)

    def on_verdict(self, node: str, verdict: Verdict) -> list[Change]:
        """Process an Envoy's answer; return the changes that follow from it."""
        for kind in SharedResource:
            if kind.type_url != verdict.type_url or kind.resource not in verdict.versions:
                continue
            if self._inquiry and self._inquiry.kind is kind:
                continue
            if verdict.message is None:
                self._snapshot.accept(kind, verdict.versions[kind.resource])
                if self._sole.get(kind, node) != node and node not in self._mute:
                    self._reviews[node, kind] = None
            elif kind.resource in verdict.blamed and node not in self._mute:
                self._waiting.setdefault((node, kind), 0)
        return [*self._record_answer(node, verdict), *self._advance()]

    def on_disconnect(self, node: str) -> list[Change]:
        """Record that an Envoy disconnected, which ends inquiries at it."""
        self._forget(node)
        self._mute.discard(node)
        gone = [self._end({})] if self._inquiry and self._inquiry.node == node else []
        return [*gone, *self._advance()]

    def overdue(self) -> list[Change]:
        """Continue without overdue answers. Must be called at intervals while `is_waiting`."""
        self._waiting = {key: age + 1 for key, age in self._waiting.items()}
        ended = []
        if inquiry := self._inquiry:
            inquiry.age += 1
            if inquiry.age >= LATE and not inquiry.is_answered:
                self._mute.add(inquiry.node)
                self._forget(inquiry.node)
                ended = [self._end({})]
        return [*ended, *self._advance()]

    def _forget(self, node: str) -> None:
        self._waiting = {key: age for key, age in self._waiting.items() if key[0] != node}
        self._reviews = {key: None for key in self._reviews if key[0] != node}

    def _record_answer(self, node: str, verdict: Verdict) -> list[Change]:
        """Keep the verdict if it answers the inquiry's question."""
        inquiry = self._inquiry
        if inquiry is None or (node, verdict.type_url) != (inquiry.node, LDS):
            return []
        if verdict.versions.get(names.TRIAL) != self._snapshot.table(LDS)[names.TRIAL].version:
            return []
        if verdict.message is not None and not verdict.blamed:  # final, or smaller responses follow
            return [self._end({})] if verdict.is_final else []
        inquiry.is_answered = True
        inquiry.answer = verdict.message if names.TRIAL in verdict.blamed else None
        return []

    def _advance(self) -> list[Change]:
        """Continue as far as the answers allow."""
        changes = []
        while change := self._continue() if self._inquiry else self._begin_next():
            changes.append(change)
        return changes

    def _continue(self) -> Change | None:
        """Return the change that follows from the inquiry's answer; None while it must wait for one."""
        inquiry = self._inquiry
        assert inquiry is not None
        if inquiry.search is None:
            return self._conclude_review(inquiry) if inquiry.is_answered else None
        if self._is_accepted(inquiry.node, inquiry.kind.type_url, inquiry.kind.resource):
            return self._end({})
        if not inquiry.is_answered:
            return None
        answer = inquiry.answer
        if answer is not None:
            if self._is_accepted(inquiry.node, LDS, names.TRIAL):
                answer = None
            elif inquiry.age < LATE and self._is_awaited(inquiry.node, LDS, names.TRIAL):
                return None
        try:
            question = inquiry.search.send(answer)
        except StopIteration as stop:
            return self._end(stop.value)
        return self._ask(inquiry, question)

    def _conclude_review(self, review: _Inquiry) -> Change:
        self._sole.pop(review.kind, None)
        if review.answer is None:
            self._snapshot.selection.pardon([name for name, found in review.tried.items() if review.kind.part(found)])
        return self._end({})

    def _begin_next(self) -> Change | None:
        """Start the next inquiry into a resource that no Envoy accepts, or the next review."""
        for (node, kind), age in tuple(self._waiting.items()):
            is_accepted = self._is_accepted(node, kind.type_url, kind.resource)
            if not is_accepted and age < LATE and self._is_awaited(node, kind.type_url, kind.resource):
                continue
            del self._waiting[node, kind]
            known, suspects = self._snapshot.selection.suspects(kind)
            if not is_accepted and (known or suspects):
                found = search(known, suspects)
                self._inquiry = _Inquiry(node, kind, self._snapshot.selection.served, found)
                return self._ask(self._inquiry, next(found))
        while self._reviews:
            node, kind = self._reviews.popitem()[0]
            if kind in self._sole:
                everyone = self._snapshot.selection.good
                self._inquiry = _Inquiry(node, kind, everyone, None)
                return self._ask(self._inquiry, tuple(name for name, part in everyone.items() if kind.part(part)))
        return None

    def _is_accepted(self, node: str, type_url: str, name: str) -> bool:
        """Return whether another Envoy accepts the current version of a resource."""
        present = self._snapshot.table(type_url).get(name)
        others = self._others(node, type_url)
        return present is not None and any(other.has_accepted(name, present.version) for other in others)

    def _is_awaited(self, node: str, type_url: str, name: str) -> bool:
        """Return whether another Envoy has not answered the current version of a resource yet."""
        return any(other.has_unanswered(name) for other in self._others(node, type_url))

    def _ask(self, inquiry: _Inquiry, question: Question) -> Change:
        inquiry.is_answered, inquiry.answer, inquiry.age = False, None, 0
        return self._snapshot.ask(inquiry.kind, [inquiry.tried[name] for name in question])

    def _end(self, found: Mapping[str, str]) -> Change:
        assert self._inquiry is not None
        ended, self._inquiry = self._inquiry, None
        if found and not any(True for _ in self._others(ended.node, LDS)):
            self._sole[ended.kind] = ended.node
        self._snapshot.selection.reject(ended.tried, found)
        return self._snapshot.end_trial()
