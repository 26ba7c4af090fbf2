"""Parsing of a labeled Service's `zenvoy.dev/*` annotations to the spec of its ScaledService. Pure.

All problems are reported at once, each at its annotation, including those that `resolve.py` finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

import msgspec

from reconciler.core import validation
from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import PROTOCOL_OF_WORD, Protocol, UsageUnit
from reconciler.core.text import closest_match, join_words
from reconciler.core.validation import LAST, MAX_HELD, MAX_PORT, MAX_TRUSTED_HOPS, NO_MEANINGS, Notation
from reconciler.kubernetes.config import busy, ignore_rules
from reconciler.kubernetes.config.capture import CaptureMode
from reconciler.kubernetes.config.resolve import DEFAULT_TARGET, ClusterConfig, protocol_of, resolve
from reconciler.kubernetes.config.service_config import SERVICE, Readiness, ServiceConfig
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import ObjectMeta, Target, is_label
from reconciler.kubernetes.types.scaled_service import (
    BUSY_UNTIL_ANNOTATION,
    ENABLED_LABEL,
    PREFIX,
    IgnoreAnswer,
    ScaledService,
    ScaledServiceSpec,
)

APPS = ("Deployment", "StatefulSet", "ReplicaSet")
MAX_DIGITS = 10
MAX_UNKNOWN = 16
"""Number of unknown annotations that are reported one by one; each report costs time that all services share."""
MAX_VALUE_LENGTH = 65_536
MAX_HOSTS, MAX_TEXTS = 64, 32
"""Entries of lists, as in the schema of ScaledServices."""
PartialSpec = dict[str, Any]
"""A spec with only the fields that annotations set."""


class Field(NamedTuple):
    """The field that an annotation sets."""

    path: str
    """Path in the spec."""
    parse: Callable[[str], Any]
    example: str


class _Invalid(Exception):
    """An invalid value; the arguments are a message and a remedy."""


def is_enabled(service: Service) -> bool:
    """Return whether the label asks for a ScaledService."""
    return service.metadata.labels.get(ENABLED_LABEL) == "true"


def label_problem(service: Service) -> Problem | None:
    """Check the label, which must be true or false."""
    value = service.metadata.labels.get(ENABLED_LABEL, "false")
    if value in ("true", "false"):
        return None
    what = f"{value!r} is neither true nor false"
    return Problem(Reason.BAD_LABEL, ENABLED_LABEL, what, "use true", SERVICE, harmless=True)


def parse_annotations(service: Service, cluster: ClusterConfig) -> tuple[PartialSpec, tuple[Problem, ...]]:
    """Return the valid fields, and all problems. If the installation can capture, a Service is captured by default."""
    fields, problems = _parse_fields(service.metadata.annotations)
    if "ignore" in fields:
        _make_ignore_rules(fields, problems)
    if cluster.capture_ports and _is_captured_by_default(service, fields):
        fields["capture"] = CaptureMode.PROXY.value
    problems += _spec_problems(service, fields, cluster, {problem.field for problem in problems})
    return fields, tuple(problems)


def _parse_fields(annotations: Mapping[str, str]) -> tuple[PartialSpec, list[Problem]]:
    """Return the valid fields, and the problems of single annotations. `ignore` has the parts of rules."""
    fields: PartialSpec = {}
    # `busy-until` is not a field: it changes too often to be copied to the spec.
    given = {
        key: value for key, value in annotations.items() if key.startswith(PREFIX) and key != BUSY_UNTIL_ANNOTATION
    }
    unknown = sorted(key for key in given if key.removeprefix(PREFIX) not in FIELDS)
    problems = _unknown_problems(unknown)
    for key in sorted(given.keys() - unknown):
        name, value = key.removeprefix(PREFIX), given[key]
        try:
            if len(value) > MAX_VALUE_LENGTH:
                raise _Invalid(f"longer than {MAX_VALUE_LENGTH} characters", "shorten it")
            field, _, part = FIELDS[name].path.partition(".")
            parsed = FIELDS[name].parse(value.strip())
            if part:
                fields.setdefault(field, {})[part] = parsed
            else:
                fields[field] = parsed
        except _Invalid as invalid:
            what, right = invalid.args
            problems.append(Problem(Reason.BAD_ANNOTATION, key, what, right, SERVICE))
    return fields, sorted(problems, key=lambda problem: problem.field)


def _make_ignore_rules(fields: PartialSpec, problems: list[Problem]) -> None:
    """Make the rules of `ignore` from their parts. An answer without a rule is a problem, unless the rule is one."""
    parts = fields.pop("ignore")
    answer = {"answer": parts.pop("answer")} if "answer" in parts else {}
    # A rule for each kind, so that a request needs to match one of them only.
    if rules := [{kind: texts, **answer} for kind, texts in parts.items()]:
        fields["ignore"] = rules
    elif not any(problem.field.startswith(f"{PREFIX}ignore-") for problem in problems):
        what, right = "no requests are ignored", f"set for example {PREFIX}ignore-paths: /healthz"
        problems.append(Problem(Reason.BAD_ANNOTATION, f"{PREFIX}ignore-answer", what, right, SERVICE))


def item_of(service: Service, fields: PartialSpec) -> ScaledService:
    """Return the ScaledService that a Service asks for; the API server adds the defaults."""
    meta = ObjectMeta(name=service.metadata.name, namespace=service.metadata.namespace)
    return ScaledService(meta, msgspec.convert(fields, ScaledServiceSpec))


def _spec_problems(service: Service, fields: PartialSpec, cluster: ClusterConfig, known: set[str]) -> list[Problem]:
    """Return the problems of the resulting spec, except for annotations that have a problem already."""
    found = resolve(item_of(service, fields), service, cluster, ANNOTATIONS)
    if isinstance(found, ServiceConfig):
        return []
    problems = dict.fromkeys(replace(problem, on=SERVICE) for problem in found)
    return [problem for problem in problems if problem.field not in known]


def _is_captured_by_default(service: Service, fields: PartialSpec) -> bool:
    """Return whether neither an annotation nor the protocol says how its clients reach the proxy."""
    annotated = {_annotation(path) for path in ("capture", "listen")} & service.metadata.annotations.keys()
    return not annotated and protocol_of(item_of(service, fields), service) is not Protocol.TLS


def _annotation(path: str) -> str:
    """Return the annotation that sets a field. Each entry of `ignore` comes from the same annotations."""
    if path == "service":
        return "spec"  # of the Service itself, which has the annotations
    entry, bracket, part = path.partition("].")
    path = f"ignore.{part}" if bracket and entry.startswith("ignore[") else path
    return f"{PREFIX}{_BY_PATH.get(path) or _BY_PATH.get(path.partition('.')[0], path)}"


def _unknown_problems(keys: Sequence[str]) -> list[Problem]:
    """Return the problems of unknown annotations, those beyond `MAX_UNKNOWN` as one."""
    problems = [_unknown_problem(key) for key in keys[:MAX_UNKNOWN]]
    if more := len(keys) - len(problems):
        what = f"{more} more annotations are unknown"
        problems.append(Problem(Reason.BAD_ANNOTATION, f"{PREFIX}*", what, "remove them", SERVICE))
    return problems


def _unknown_problem(key: str) -> Problem:
    if key == ENABLED_LABEL:
        return Problem(Reason.BAD_ANNOTATION, key, "a label, not an annotation", "remove the annotation", SERVICE)
    guess = closest_match(key.removeprefix(PREFIX), FIELDS)
    right = f"did you mean {PREFIX}{guess}?" if guess else f"use {join_words(FIELDS)}"
    return Problem(Reason.BAD_ANNOTATION, key, "unknown annotation", right, SERVICE)


def _target(text: str) -> Mapping[str, str]:
    *before, kind, name = text.split("/") if "/" in text else ("", text)
    api_version = "/".join(before) if before else DEFAULT_TARGET[0]
    if Target(api_version, kind, name, namespace="").invalid:
        raise _Invalid(f"{text!r} is not a valid target", "use for example Deployment/web or apps/v1/StatefulSet/db")
    if before or kind in APPS:
        return {"apiVersion": api_version, "kind": kind, "name": name}
    if guess := closest_match(kind, APPS):
        raise _Invalid(f"{kind} is not a known kind", f"did you mean {guess}/{name}?")
    raise _Invalid(f"the API group of {kind} is missing", f"use for example example.com/v1/{kind}/{name}")


def _port(text: str) -> int | str:
    if text.isdecimal():
        return _number(text, MAX_PORT, 80)
    if not is_label(text):
        right = "use the name or number of a port of the Service, for example http or 80"
        raise _Invalid(f"{text!r} is not a valid port", right)
    return text


def _text(problem_of: Callable[[str, str], Problem | None]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        _check(problem_of("", text))
        return text

    return parse


def _word(known: type[StrEnum], meanings: Mapping[str, str] = NO_MEANINGS) -> Callable[[str], str]:
    return _text(partial(validation.choice_problem, known=known, meanings=meanings))


def _check(problem: Problem | None) -> None:
    if problem:
        raise _Invalid(problem.message, problem.remedy)


def _texts(path: str, problem_of: Callable[[str, str], Problem | None], example: str, most: int = MAX_TEXTS) -> Field:
    """Return a field that is a list."""

    def parse(text: str) -> list[str]:
        texts = [entry for part in text.split(",") if (entry := part.strip())]
        if not texts:
            raise _Invalid("empty", f"use for example {example}")
        if len(texts) > most:
            raise _Invalid(f"{len(texts)} entries", f"use at most {most}")
        for one in texts:
            _check(problem_of("", one))
        return list(dict.fromkeys(texts))

    return Field(path, parse, example)


def _answer(text: str) -> Mapping[str, int | str]:
    """Parse a status and a body. The status is always set: a default of the API server would be a difference."""
    status, _, body = text.partition(" ")
    if not status.isascii() or not status.isdecimal() or len(status) != 3:
        raise _Invalid(f"{text!r} does not start with a status", "use for example 200, or with a body 200 asleep")
    answer = IgnoreAnswer(int(status), body.strip())
    for problem in ignore_rules.answer_problems("", answer):
        _check(problem)
    return {"status": answer.status, **({"body": answer.body} if answer.body else {})}


def _number(text: str, most: int, example: int, least: int = 1) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > MAX_DIGITS:
        raise _Invalid(f"{text!r} is not a number from {least} to {most}", f"use for example {example}")
    _check(validation.number_problem("", int(text), most, example, least))
    return int(text)


def _replicas(text: str) -> int | str:
    number = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
    replicas = int(text) if number else text
    _check(validation.replicas_problem("", replicas))
    return replicas


def _yes_no(text: str) -> bool:
    if text not in ("true", "false"):
        raise _Invalid(f"{text!r} is neither true nor false", "use true or false")
    return text == "true"


FIELDS: Mapping[str, Field] = {
    "target": Field("scaleTargetRef", _target, "StatefulSet/db"),
    "port": Field("port", _port, "http"),
    "protocol": Field("protocol", _word(Protocol, PROTOCOL_OF_WORD), "h2c"),
    "hosts": _texts("hosts", validation.host_problem, "shop.example.com,www.example.com", MAX_HOSTS),
    "listen": Field("listen", lambda text: _number(text, MAX_PORT, 5432), "5432"),
    "http-trusted-hops": Field("http.trustedHops", lambda text: _number(text, MAX_TRUSTED_HOPS, 1, 0), "1"),
    "replicas": Field("replicas", _replicas, LAST),
    "idle-after": Field("idleAfter", _text(validation.duration_problem), "5m"),
    "wake-timeout": Field("wakeTimeout", _text(validation.duration_problem), "2m"),
    "hold-timeout": Field("holdTimeout", _text(validation.duration_problem), "60s"),
    "drain-timeout": Field("drainTimeout", _text(validation.duration_problem), "30s"),
    "max-held": Field("maxHeld", lambda text: _number(text, MAX_HELD, 1024), "1024"),
    "idle-by": Field("idle.by", _word(UsageUnit), "bytes"),
    "wake-by": Field("wake.by", _word(UsageUnit), "bytes"),
    "busy-http": Field("busy.http", _text(busy.path_problem), "/busy"),
    "busy-port": Field("busy.port", lambda text: _number(text, MAX_PORT, 8081), "8081"),
    "ignore-paths": _texts("ignore.paths", validation.path_problem, "/healthz,/metrics/*"),
    "ignore-user-agents": _texts("ignore.userAgents", validation.user_agent_problem, "kube-probe/,Prometheus/"),
    "ignore-sources": _texts("ignore.sources", validation.source_problem, "10.8.0.0/16,fd00::/8"),
    "ignore-answer": Field("ignore.answer", _answer, "200 asleep"),
    "readiness": Field("readiness", _word(Readiness), "kubernetes"),
    "capture": Field("capture", _word(CaptureMode), "proxy"),
    "refusal-details": Field("refusalDetails", _yes_no, "true"),
    "paused": Field("paused", _yes_no, "true"),
}
"""The fields by annotation, without `zenvoy.dev/`."""
_BY_PATH = {field.path: name for name, field in FIELDS.items()}
ANNOTATIONS = Notation(place=_annotation, key=_annotation)
"""The names of fields in the annotations of a Service."""
