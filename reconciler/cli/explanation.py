"""The answer of `zenvoy explain` for people: state, evidence, next deadline, and recent transitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from reconciler.cli import output
from reconciler.cli.options import OutputFormat
from reconciler.cli.tables import age, duration, last_wake, next_event
from reconciler.core.text import paused_effect

View = Mapping[str, Any]


def write(answer: View, output_format: OutputFormat) -> None:
    """Write an answer to standard output."""
    if output_format != "table":
        output.data(answer, output_format)
        return
    for line in lines(answer, datetime.now(UTC)):
        output.echo(line)


def lines(answer: View, now: datetime) -> Iterator[str]:
    """Yield the lines of all paragraphs; parts that are not known are omitted."""
    service = answer["service"]
    since = service["since"]
    lasting = f" since {since} ({age(since, now)})" if since else ""
    yield f"{service['name']} is {service['state']}{lasting}: {service['reason']}"
    yield from output.columns([*_facts(answer, now)], "  ")
    for paragraph in (_sample, _route, _holders, _conditions, _transitions):
        if found := [*paragraph(answer)]:
            yield ""
            yield from found


def _facts(answer: View, now: datetime) -> Iterator[tuple[str, str]]:
    service = answer["service"]
    if service["stalled"]:
        yield "stalled", service["stalled"] + _reference(service)
    if rejected := service.get("rejected"):
        yield "rejected", f"Envoy rejects a part of it: {rejected}"
    if service["paused"]:
        is_in_file = service.get("alwaysPaused") and "target" not in service
        ends = {"until": "`paused: true` is removed from the services file"} if is_in_file else {}
        yield "paused", paused_effect(service["state"], **ends)
    if busy := service.get("busy"):
        yield "busy", _busy(busy)
    if unserved := service.get("unserved"):
        yield "flapping", f"{unserved['reason']}: {unserved['message']}"
    if target := service.get("target"):
        yield "target", target
    yield "replicas", "unknown" if service["replicas"] is None else str(service["replicas"])
    if "endpoints" in service:
        yield "endpoints", ", ".join(service["endpoints"]) or "none reachable"
    if (diagnosis := service.get("diagnosis")) and diagnosis != service["stalled"]:
        yield "diagnosis", diagnosis
    yield "hold address", service["holdAddress"] or "none yet"
    if "drainBlocker" in answer:
        yield "next", _next(answer, now)
        yield "last wake", last_wake(service) or "none since the controller started"
    if leader := answer.get("leader"):
        yield "leader", f"{leader['pod'] or 'none'} (Lease renewed at {leader['renewedAt'] or 'unknown time'})"
    if standing := answer.get("standing"):
        yield "answered by", _replica(standing)


def _busy(busy: View) -> str:
    """Return the latest answer of the busy check, and the annotation with a time."""
    answer = f"{busy['reason']}: {busy['message']}" if busy["reason"] else "idle"
    asked = [f"{answer} (asked at {busy['askedAt']})"] if busy["askedAt"] else []
    return "; ".join([*asked, *([busy["until"]] if busy["until"] else [])])


def _replica(standing: View) -> str:
    """Return the role and the connections of the replica that answered."""
    role = "the leader" if standing["leads"] else f"a follower of {standing['leader'] or 'no leader'}"
    others = f"; connected: {', '.join(standing['connected'])}" if standing["connected"] else ""
    unknown = f"; no service sleeps: {standing['unknown']}" if standing["unknown"] else ""
    return f"{standing['replica']}, {role}{others}{unknown}"


def _next(answer: View, now: datetime) -> str:
    """Return the next deadline, and the drain blocker if there is one."""
    if (deadline := answer["service"]["deadline"]) is None:
        return "no deadline"
    text = next_event(deadline, now)
    if (blocker := answer["drainBlocker"]) is None:
        return text
    code = answer.get("drainBlockerReason")
    return f"{text}; drain blocker: {f'{code}: ' if code else ''}{blocker}"


def _sample(answer: View) -> Iterator[str]:
    if (sample := answer.get("sample")) is None:
        return
    judged = answer["judged"]
    when = "no sample yet" if sample["ageSeconds"] is None else f"{duration(sample['ageSeconds'])} old"
    yield f"Traffic, by {sample['source']} ({when}): " + (
        f"{judged['usage']}, {judged['reason']}" if judged else "none"
    )
    if sample["unknown"]:
        yield f"  usage is unknown, so no service sleeps: {sample['unknown']}"
    rows = [("ENVOY", "REQUESTS", "IN FLIGHT", "CONNECTIONS", "OPEN", "BYTES", "UP")]
    for envoy in sample["envoys"]:
        if "missing" in envoy:
            rows.append((envoy["id"], f"missing: {envoy['missing']}", *[""] * 5))
            continue
        count = envoy["counters"]
        figures = ("requests", "active_requests", "connections", "active_connections", "bytes")
        rows.append((envoy["id"], *(str(count[name]) for name in figures), duration(envoy["uptimeSeconds"])))
    yield from _table(rows)


def _route(answer: View) -> Iterator[str]:
    if (envoys := answer.get("envoys")) is None:
        return
    route = answer["service"]["route"]
    state = (
        f"acknowledged at {route['ackedAt']}" if route["ackedAt"] else f"not acknowledged by all: {route['waitingFor']}"
    )
    yield f"Route to {', '.join(route['to']) or 'nothing yet'}, version {envoys['version'] or 'none'}: {state}"
    rows = [("ENVOY", "ACKNOWLEDGED", "SINCE")]
    for envoy in envoys["each"]:
        acked = "disconnected" if envoy["acked"] is None else envoy["acked"] or "nothing yet"
        rows.append((envoy["id"], acked, envoy["ackedAt"] or "not the current version"))
    yield from _table(rows)


def _holders(answer: View) -> Iterator[str]:
    if (holders := answer.get("holders")) is None:
        return
    service = answer["service"]
    known = service["held"] is not None and service["relayed"] is not None
    total = (
        f"{service['held']} held, {service['relayed']} relayed"
        if known
        else "unknown, because a holder is disconnected"
    )
    yield f"Connections in holders: {total}"
    figures = ("held", "relayed", "released", "refused", "gone")
    rows = [("HOLDER", "MODE", *(name.upper() for name in figures), "ORDER")]
    for holder in holders:
        order = "applied" if holder["inForce"] else "not applied yet" if holder["connected"] else "disconnected"
        rows.append((holder["id"], holder["mode"], *(str(holder[name]) for name in figures), order))
    yield from _table(rows)


def _conditions(answer: View) -> Iterator[str]:
    if not (conditions := answer["service"].get("conditions")):
        return
    yield "Conditions"
    yield from output.columns([(one["type"], one["status"], _condition_text(one)) for one in conditions], "  ")


def _condition_text(condition: View) -> str:
    """Return reason and message; many messages already begin with the reason, for places that show only them."""
    reason, message = condition["reason"], str(condition["message"])
    return message if message.startswith(f"{reason}: ") else f"{reason}: {message}".removesuffix(": ")


def _transitions(answer: View) -> Iterator[str]:
    transitions = answer["transitions"]
    yield "Last transitions" if transitions else "No recorded transitions"
    rows: list[tuple[str, ...]] = []
    for move in transitions:
        states = f"{move['from']} → {move['to']}" if move["to"] else ""
        rows.append((move["at"] or "", states, move["event"], move["reason"] + _reference(move)))
    if not any(row[1] for row in rows):  # Events do not contain the states
        rows = [(row[0], *row[2:]) for row in rows]
    yield from output.columns(rows, "  ")


def _reference(known: View) -> str:
    """Return the reference that refusals to clients contain."""
    return f" (reference {known['reference']})" if known.get("reference") else ""


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table; a row without data states that."""
    return output.columns(rows, "  ") if len(rows) > 1 else ["  none connected"]
