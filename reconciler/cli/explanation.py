"""The answer of `zenvoy explain` for people: the state, the evidence for it, what comes next, and what went before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from reconciler.cli import output
from reconciler.cli.options import OutputFormat
from reconciler.cli.tables import EVENTS, duration, last_wake

View = Mapping[str, Any]


def write(answer: View, output_format: OutputFormat) -> None:
    """On standard output."""
    if output_format is not OutputFormat.table:
        output.data(answer, output_format)
        return
    for line in lines(answer, datetime.now(UTC)):
        output.echo(line)


def lines(answer: View, now: datetime) -> Iterator[str]:
    """Paragraphs, each with what is known of it; what nobody could tell is left out."""
    service = answer["service"]
    yield f"{service['name']} is {service['state']}{_for(service['since'], now)}: {service['reason']}"
    yield from output.columns([*_facts(answer, now)], "  ")
    for paragraph in (_sample, _route, _holders, _conditions, _transitions):
        if found := [*paragraph(answer, now)]:
            yield ""
            yield from found


def _facts(answer: View, now: datetime) -> Iterator[tuple[str, str]]:
    service = answer["service"]
    if service["stalled"]:
        yield "stalled", service["stalled"] + _reference(service)
    if rejected := service.get("rejected"):
        yield "rejected", f"Envoy rejects a part of it: {rejected}"
    if service["paused"]:
        yield "paused", "it is not put to sleep until `zenvoy resume`"
    if target := service.get("target"):
        yield "target", target
    yield "replicas", _or_unknown(service["replicas"])
    if "endpoints" in service:
        yield "endpoints", ", ".join(service["endpoints"]) or "none that can be dialled"
    if (diagnosis := service.get("diagnosis")) and diagnosis != service["stalled"]:
        yield "diagnosis", diagnosis
    yield "hold address", service["holdAddress"] or "none yet"
    if "obstacle" in answer:
        yield "next", _next(answer, now)
        yield "last wake", last_wake(service["lastWake"]) or "none since the controller started"
    if leader := answer.get("leader"):
        yield "leader", f"{leader['pod'] or 'nobody'} (its Lease was renewed at {leader['renewedAt'] or 'no time'})"
    if standing := answer.get("standing"):
        yield "told by", _standing(standing)


def _standing(standing: View) -> str:
    """Of the replica that answered."""
    role = "which leads" if standing["leads"] else f"which follows {standing['leader'] or 'nobody'}"
    others = f"; connected to it: {', '.join(standing['connected'])}" if standing["connected"] else ""
    unknown = f"; nothing is put to sleep: {standing['unknown']}" if standing["unknown"] else ""
    return f"{standing['replica']}, {role}{others}{unknown}"


def _next(answer: View, now: datetime) -> str:
    """The deadline, and what keeps a drain from being over before."""
    service = answer["service"]
    deadline = service["deadline"]
    if deadline is None:
        return "it stays so until something happens"
    left = (datetime.fromisoformat(deadline["at"]) - now).total_seconds()
    said = f"{EVENTS.get(deadline['event'], deadline['event'])} in {duration(max(0.0, left))}"
    return f"{said}; not drained yet: {answer['obstacle']}" if answer["obstacle"] else said


def _sample(answer: View, now: datetime) -> Iterator[str]:
    if (sample := answer.get("sample")) is None:
        return
    judged = answer["judged"]
    age = "no sample yet" if sample["ageSeconds"] is None else f"{duration(sample['ageSeconds'])} old"
    yield f"Traffic, by {sample['source']} ({age}): " + (f"{judged['usage']}, {judged['reason']}" if judged else "none")
    if sample["unknown"]:
        yield f"  in doubt, which keeps services awake: {sample['unknown']}"
    rows = [("ENVOY", "REQUESTS", "IN FLIGHT", "CONNECTIONS", "OPEN", "BYTES", "UP")]
    for envoy in sample["envoys"]:
        if "missing" in envoy:
            rows.append((envoy["id"], f"missing: {envoy['missing']}", *[""] * 5))
            continue
        count = envoy["counters"]
        figures = ("requests", "active_requests", "connections", "active_connections", "bytes")
        rows.append((envoy["id"], *(str(count[name]) for name in figures), duration(envoy["uptimeSeconds"])))
    yield from _table(rows)


def _route(answer: View, now: datetime) -> Iterator[str]:
    if (envoys := answer.get("envoys")) is None:
        return
    route = answer["service"]["route"]
    state = (
        f"acknowledged at {route['ackedAt']}" if route["ackedAt"] else f"not acknowledged by all: {route['waitingFor']}"
    )
    yield f"Route to {', '.join(route['to']) or 'nowhere yet'}, version {envoys['version'] or 'none'}: {state}"
    rows = [("ENVOY", "ACKNOWLEDGED", "SINCE")]
    for envoy in envoys["each"]:
        acked = "away" if envoy["acked"] is None else envoy["acked"] or "nothing yet"
        rows.append((envoy["id"], acked, envoy["ackedAt"] or "not the present version"))
    yield from _table(rows)


def _holders(answer: View, now: datetime) -> Iterator[str]:
    if (holders := answer.get("holders")) is None:
        return
    service = answer["service"]
    known = service["held"] is not None and service["relayed"] is not None
    total = (
        f"{_said(service['held'], 'waits', 'wait')}, {_said(service['relayed'], 'is relayed', 'are relayed')}"
        if known
        else "not known, as a holder is missing"
    )
    yield f"Held: {total}"
    figures = ("held", "relayed", "released", "refused", "gone")
    rows = [("HOLDER", "MODE", *(name.upper() for name in figures), "ORDER")]
    for holder in holders:
        order = "in force" if holder["inForce"] else "not in force yet" if holder["connected"] else "away"
        rows.append((holder["id"], holder["mode"], *(str(holder[name]) for name in figures), order))
    yield from _table(rows)


def _said(count: int, of_one: str, of_more: str) -> str:
    return f"{count} {of_one if count == 1 else of_more}"


def _conditions(answer: View, now: datetime) -> Iterator[str]:
    if not (conditions := answer["service"].get("conditions")):
        return
    yield "Conditions"
    yield from output.columns(
        [(one["type"], one["status"], _told(one["reason"], one["message"])) for one in conditions],
        "  ",
    )


def _told(reason: str, message: str) -> str:
    """Many messages begin with their reason, as they stand alone elsewhere."""
    return message if message.startswith(f"{reason}: ") else f"{reason}: {message}".removesuffix(": ")


def _transitions(answer: View, now: datetime) -> Iterator[str]:
    transitions = answer["transitions"]
    yield "Last transitions" if transitions else "No transition is remembered"
    rows: list[tuple[str, ...]] = []
    for move in transitions:
        states = f"{move['from']} → {move['to']}" if move["to"] else ""
        rows.append((move["at"] or "", states, move["event"], move["reason"] + _reference(move)))
    if not any(row[1] for row in rows):  # Events do not say between which states
        rows = [(row[0], *row[2:]) for row in rows]
    yield from output.columns(rows, "  ")


def _reference(known: View) -> str:
    """By which refusals to clients name it."""
    return f" (reference {known['reference']})" if known.get("reference") else ""


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Nothing but a header is nothing."""
    return output.columns(rows, "  ") if len(rows) > 1 else ["  nobody is connected"]


def _for(since: str | None, now: datetime) -> str:
    if since is None:
        return ""
    return f" since {since} ({duration(max(0.0, (now - datetime.fromisoformat(since)).total_seconds()))})"


def _or_unknown(value: Any) -> str:
    return "not known" if value is None else str(value)
