"""What a labelled Service's `zenvoy.dev/*` annotations say: the spec of the ScaledService that it gets. Pure.

Rule: all mistakes are told at once, each at its annotation. `resolve.py` checks what they mean; its mistakes are
reported here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import IdleBy, Protocol
from reconciler.core.text import closest_match, join_words, parse_duration
from reconciler.kubernetes.config import ignore_rules
from reconciler.kubernetes.config.resolve import DEFAULT_TARGET, LAST, LONGEST_SECONDS, ClusterConfig, resolve
from reconciler.kubernetes.config.service_config import SERVICE, ServiceConfig
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.names import is_api_version, is_kind, is_subdomain
from reconciler.kubernetes.types.objects import ObjectMeta
from reconciler.kubernetes.types.scaled_service import (
    ENABLED_LABEL,
    PREFIX,
    IgnoreAnswer,
    ScaledService,
    ScaledServiceSpec,
)

APPS = ("Deployment", "StatefulSet", "ReplicaSet")
PartialSpec = dict[str, Any]
"""A spec as it is written, with only what the annotations say."""

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Field(NamedTuple):
    """What one annotation fills."""

    path: str
    """The field of the spec."""
    parse: Callable[[str], Any]
    example: str


class _Wrong(Exception):
    """What is wrong with a value, and what would be right."""


def is_enabled(service: Service) -> bool:
    return service.metadata.labels.get(ENABLED_LABEL) == "true"


def label_problem(service: Service) -> Problem | None:
    """The label may be anything; only true and false mean something."""
    value = service.metadata.labels.get(ENABLED_LABEL, "false")
    if value in ("true", "false"):
        return None
    return Problem(
        Reason.BAD_LABEL, ENABLED_LABEL, f"{value!r} is neither true nor false", "write true", SERVICE, harmless=True
    )


def parse_annotations(service: Service, cluster: ClusterConfig) -> tuple[PartialSpec, tuple[Problem, ...]]:
    """What they say, as far as it is right, and everything that is wrong."""
    said: PartialSpec = {}
    problems = []
    for key, value in sorted(service.metadata.annotations.items()):
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        try:
            if name not in FIELDS:
                raise _unknown(name)
            field, _, part = FIELDS[name].path.partition(".")
            parsed = FIELDS[name].parse(value.strip())
            if part:
                said.setdefault(field, {})[part] = parsed
            else:
                said[field] = parsed
        except _Wrong as wrong:
            what, right = wrong.args
            problems.append(Problem(Reason.BAD_ANNOTATION, key, what, right, SERVICE))
    if "ignore" in said:
        said["ignore"] = _rules(**said["ignore"])
    if said.get("ignore") == []:
        del said["ignore"]
        if not any(problem.field.startswith(f"{PREFIX}ignore-") for problem in problems):
            right = f"say what is ignored, as in {PREFIX}ignore-paths: /healthz"
            problems.append(
                Problem(Reason.BAD_ANNOTATION, f"{PREFIX}ignore-answer", "nothing is ignored", right, SERVICE)
            )
    problems += _in_its_place(service, said, cluster, {problem.field for problem in problems})
    return said, tuple(problems)


def spec_of(said: PartialSpec) -> ScaledServiceSpec:
    """The spec that they make; defaults are left to the API server."""
    return msgspec.convert(said, ScaledServiceSpec)


def _in_its_place(service: Service, said: PartialSpec, cluster: ClusterConfig, known: set[str]) -> list[Problem]:
    """What is wrong with them together, and with this Service, but for what is said already."""
    meta = ObjectMeta(name=service.metadata.name, namespace=service.metadata.namespace)
    found = resolve(ScaledService(meta, spec_of(said)), service, cluster)
    if isinstance(found, ServiceConfig):
        return []
    told = [_told_here(problem) for problem in found]
    return [problem for problem in dict.fromkeys(told) if problem.field not in known]


def _told_here(problem: Problem) -> Problem:
    """In the words of annotations."""

    def named(match: re.Match[str]) -> str:
        field = re.sub(r"\[\d+\]", "", match[2])
        return f"{match[1]}{PREFIX}{_BY_PATH.get(field, field)}"

    texts = (problem.field, problem.message, problem.remedy)
    where, what, right = (re.sub(r"(^|\b)spec\.(ignore\[\d+\]\.\w+|\w+(?:\.by)?)", named, text) for text in texts)
    right = re.sub(r"\b((?:as|write) )(listen|protocol)(?=: )", named, right)
    where = "spec" if where == f"{PREFIX}service" else where
    return Problem(problem.reason, where, what, right, SERVICE)


def _unknown(name: str) -> _Wrong:
    if f"{PREFIX}{name}" == ENABLED_LABEL:
        return _Wrong("it is a label, not an annotation", "take the annotation out, as the label is there")
    guess = closest_match(name, FIELDS)
    right = f"did you mean {PREFIX}{guess}?" if guess else f"known are {join_words(FIELDS, 'and')}"
    return _Wrong("unknown annotation", right)


def _target(text: str) -> Mapping[str, str]:
    *before, kind, name = text.split("/") if "/" in text else ("", text)
    example = "write it as Deployment/web or apps/v1/StatefulSet/db"
    api_version = "/".join(before) if before else DEFAULT_TARGET[0]
    if not is_api_version(api_version) or not is_kind(kind) or not is_subdomain(name):
        raise _Wrong(f"{text!r} is not what can be scaled", example)
    if before or kind in APPS:
        return {"apiVersion": api_version, "kind": kind, "name": name}
    guess = closest_match(kind, APPS)
    if guess:
        raise _Wrong(f"{kind} is no kind", f"did you mean {guess}/{name}?")
    raise _Wrong(f"{kind} is of an API group that is not said", f"write it as example.com/v1/{kind}/{name}")


def _port(text: str) -> int | str:
    if text.isdecimal():
        return _number(text, 65535, 80)
    if not _PORT_NAME.fullmatch(text):
        raise _Wrong(f"{text!r} is not a port", "write a port of the Service by name or number, such as http or 80")
    return text


def _word(known: type[Protocol] | type[IdleBy]) -> Callable[[str], str]:
    words = [str(word) for word in known]

    def parse(text: str) -> str:
        if text in words:
            return text
        guess = closest_match(text, words)
        raise _Wrong(f"{text!r} is not known", f"did you mean {guess}?" if guess else f"write {join_words(words)}")

    return parse


def _hosts(text: str) -> list[str]:
    hosts = [host for part in text.split(",") if (host := part.strip())]
    if not hosts:
        raise _Wrong("there is no host in it", "write them as shop.example.com,www.example.com")
    for host in hosts:
        if not _HOST.fullmatch(host) or len(host) > 253:
            near = re.sub(r"^[a-z]+://|[:/].*$", "", host.lower())
            right = f"write {near}" if _HOST.fullmatch(near) else "write it as shop.example.com"
            raise _Wrong(f"{host!r} is not a host name", right)
    return list(dict.fromkeys(hosts))


def _rules(answer: Mapping[str, Any] | None = None, **kinds: list[str]) -> list[dict[str, Any]]:
    """Each kind is a rule of its own: what matches any of them is ignore_rules."""
    answered = {"answer": answer} if answer else {}
    return [{kind: texts, **answered} for kind, texts in kinds.items()]


def _texts(fault_of: Callable[[str], ignore_rules.Fault | None], example: str) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        texts = [said for part in text.split(",") if (said := part.strip())]
        if not texts:
            raise _Wrong("there is nothing in it", f"write it as {example}")
        for fault in filter(None, map(fault_of, texts)):
            raise _Wrong(*fault)
        return list(dict.fromkeys(texts))

    return parse


def _answer(text: str) -> Mapping[str, int | str]:
    """The status is always said: a default of the API server's would look like somebody's change."""
    status, _, body = text.partition(" ")
    if not status.isascii() or not status.isdecimal() or len(status) != 3:
        raise _Wrong(f"{text!r} does not begin with a status", "write it as 200, or with a body as 200 asleep")
    answer = IgnoreAnswer(int(status), body.strip())
    for _part, fault in ignore_rules.answer_faults(answer):
        raise _Wrong(*fault)
    return {"status": answer.status, **({"body": answer.body} if answer.body else {})}


def _number(text: str, most: int, such: int) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:10]) <= most or len(text) > 10:
        raise _Wrong(f"{text!r} is not a number from 1 to {most}", f"write one, such as {such}")
    return int(text)


def _replicas(text: str) -> int | str:
    if text == LAST:
        return text
    if not text.isdecimal() or int(text[:10]) < 1:
        raise _Wrong(f"{text!r} is not what to wake to", "write last, or a number from 1 to 100000")
    return _number(text, 100_000, 3)


def _duration(text: str) -> str:
    seconds = parse_duration(text)
    if seconds is None:
        right = f"write it as {text}s or {text}m" if text.isdecimal() else "write it as 5m, 30s or 1h30m"
        raise _Wrong(f"{text!r} is not a duration" if not text.isdecimal() else f"{text} has no unit", right)
    if not 0.001 <= seconds <= LONGEST_SECONDS:
        raise _Wrong(f"{text} is out of range", f"at least 1ms and at most {LONGEST_SECONDS // 3600}h")
    return text


def _yes_no(text: str) -> bool:
    if text not in ("true", "false"):
        raise _Wrong(f"{text!r} is neither true nor false", "write true or false")
    return text == "true"


FIELDS: Mapping[str, Field] = {
    "target": Field("scaleTargetRef", _target, "StatefulSet/db"),
    "port": Field("port", _port, "http"),
    "protocol": Field("protocol", _word(Protocol), "h2c"),
    "hosts": Field("hosts", _hosts, "shop.example.com,www.example.com"),
    "listen": Field("listen", lambda text: _number(text, 65535, 5432), "5432"),
    "replicas": Field("replicas", _replicas, LAST),
    "idle-after": Field("idleAfter", _duration, "5m"),
    "wake-timeout": Field("wakeTimeout", _duration, "2m"),
    "hold-timeout": Field("holdTimeout", _duration, "60s"),
    "drain-timeout": Field("drainTimeout", _duration, "30s"),
    "max-held": Field("maxHeld", lambda text: _number(text, 1_000_000, 1024), "1024"),
    "idle-by": Field("idle.by", _word(IdleBy), "bytes"),
    "ignore-paths": Field(
        "ignore.paths", _texts(ignore_rules.path_fault, "/healthz,/metrics/*"), "/healthz,/metrics/*"
    ),
    "ignore-user-agents": Field(
        "ignore.userAgents", _texts(ignore_rules.agent_fault, "kube-probe/,Prometheus/"), "kube-probe/,Prometheus/"
    ),
    "ignore-sources": Field(
        "ignore.sources", _texts(ignore_rules.source_fault, "10.8.0.0/16,fd00::/8"), "10.8.0.0/16,fd00::/8"
    ),
    "ignore-answer": Field("ignore.answer", _answer, "200 asleep"),
    "refusal-details": Field("refusalDetails", _yes_no, "true"),
    "paused": Field("paused", _yes_no, "true"),
}
"""By what stands behind `zenvoy.dev/`."""
_BY_PATH = {field.path: name for name, field in FIELDS.items()}
