"""Write docs/metrics.md to standard output, from the reconciler's table and from what the holder's collector yields.

`python scripts/metrics_docs.py > docs/metrics.md`, or `make golden`; a test keeps the two equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast, get_args

from prometheus_client.core import Metric

from reconciler.core.doubt import Cause as Doubted
from reconciler.core.machine import TABLE
from reconciler.core.record import State
from reconciler.core.stall_reasons import WHYS
from reconciler.metrics.table import CLUSTER_PARTS, CONTROL_FAMILIES, PARTS, SERVICE_FAMILIES, Family, Kind
from tproxy.hold_queue import Cause
from tproxy.holder import Holder
from tproxy.metrics import NOBODY, HolderCollector

INTRODUCTION = """\
# Metrics

<!-- Generated: `make golden` writes it anew from reconciler/metrics/table.py and tproxy/metrics.py. -->

The reconciler serves `/metrics` at `--metrics IP:PORT`, the holder at `--holder-metrics IP:PORT`; in Prometheus' text
format or in OpenMetrics, which has exemplars too, whichever the scraper asks for. Rules and alerts over these metrics
are in [deploy/prometheus](../deploy/prometheus), and each alert has a page in [runbooks](runbooks).

- A service that is deleted has no series any more. What is not known has no series either: no number is made up for it.
- Times are seconds since the epoch (`time() - …_timestamp_seconds` is an age); counters begin anew with the process.
- Of two replicas in a cluster the leader alone tells of services and samples. Counters begin anew at the one that leads
  next, so add up (`sum without (instance, pod)`) what `increase` says of each; of gauges take the `max`.
- Exemplars name the service of an observation. To keep them, start Prometheus with `--enable-feature=exemplar-storage`.
"""

CARDINALITY = """\
## Cardinality

A service has {least} series while it has never woken, {usual} once it has slept and woken in the usual way, and {most}
if it went through everything that the state machine allows ({transitions} transitions), is stalled, and has refused
for every reason. {many:,} services that never woke are {total:,} series. Sentences, peers and addresses are in logs and
in `zenvoy status`, not in labels. The values of labels:

- `state`, `from`, `to`: {states}.
- `event`: what the state machine's table lists, see `zenvoy diagram`.
- `result`: `woken`, `stalled`, `timed_out`.
- `why`: {whys}. In a cluster [troubleshooting](troubleshooting.md#it-does-not-wake) explains them. On one machine
  `Exited` and `Killed`: the program ended by itself; `NotStarted`: it could not be started; `NotReady`: it does not
  answer. `TimedOut`: nothing says why.
- `part`, as they follow one another: {parts}; in a cluster {cluster_parts}. The first is from
  the first held connection to the decision.
- `service` (holder): empty for what is no service's: who waits at an address that the reconciler has not spoken of yet,
  what is relayed still for a service that was removed, and refusals at addresses of no service.
- `cause`: {causes}.
- `reason` (holder): {reasons}.
- `method`, `code`: of HTTP, `WATCH` for watches that began; `none` when there was no answer.
- `envoy`: node ids of the Envoys that are connected now; `type` and `version` change when a services file does.
"""

MANY = 10_000
RESULTS = 3
ABSENT_ASLEEP = 1
"""A service that sleeps has no deadline."""
USUAL_TRANSITIONS = 5
STALLED = 1


def page() -> str:
    parts = [
        INTRODUCTION,
        _table("## The reconciler: each service", SERVICE_FAMILIES),
        _table("## The reconciler: itself, wakes, samples and Envoys", CONTROL_FAMILIES),
        "Besides these, `process_*` as every client of Prometheus has them.\n",
        _table("## The holder", holder_families()),
        _cardinality(),
    ]
    return "\n".join(parts)


def transitions() -> int:
    """How many transitions there may be of one service: changes of its state, and the two ways to stall."""
    changes = {(row.source, row.target, row.event) for row in TABLE if row.source is not row.target}
    return len(changes) + 2


def holder_families() -> Iterator[Family]:
    """What a holder with one service exports."""
    park = SimpleNamespace(
        service="web", held=0, relayed=0, released=0, gone=0, refused=Counter(timeout=1), relayed_bytes=[0, 0]
    )
    stand_in: Any = SimpleNamespace(
        refused=Counter(),
        gates={"": SimpleNamespace(park=park, live=())},
        is_linked=True,
        is_diverted_to=True,
        keeping=SimpleNamespace(is_up=True),
        budget=SimpleNamespace(used=0, limit=0),
        assignments={},
    )
    for metric in HolderCollector(cast(Holder, stand_in)).collect():
        yield _family(metric)


def _family(metric: Metric) -> Family:
    labels = tuple(metric.samples[0].labels)
    series = {(): "1", ("service",): "1 a service that was used", ("service", "direction"): "2 a service that was used"}
    assert metric.type in ("gauge", "counter")
    kind: Kind = "counter" if metric.type == "counter" else "gauge"
    many = f"up to {len(get_args(Cause))} a service that was used"
    nobodys = ", and 1" if any(sample.labels.get("service") == NOBODY for sample in metric.samples) else ""
    return Family(metric.name, kind, metric.documentation, labels, series.get(labels, many) + nobodys)


def _table(title: str, families: Iterable[Family]) -> str:
    lines = [title, "", "| metric | type | labels | series | meaning |", "|---|---|---|---|---|"]
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "none"
        lines.append(f"| `{family.sample_name}` | {family.kind} | {labels} | {family.series} | {family.help} |")
    return "\n".join(lines) + "\n"


def _cardinality() -> str:
    figures = len(State) + sum(family.series == "1 a service" for family in SERVICE_FAMILIES)
    least, woken = figures - ABSENT_ASLEEP, RESULTS + 1 + len(PARTS)
    most_parts = max(len(PARTS), len(CLUSTER_PARTS))
    return CARDINALITY.format(
        least=least,
        usual=figures + woken + USUAL_TRANSITIONS - ABSENT_ASLEEP,
        most=figures + RESULTS + 1 + most_parts + transitions() + STALLED + len(get_args(Cause)),
        transitions=transitions(),
        many=MANY,
        total=MANY * least,
        states=_words(State),
        causes=_words(Doubted),
        whys=_words(WHYS),
        parts=_words(PARTS),
        cluster_parts=_words(CLUSTER_PARTS),
        reasons=_words(get_args(Cause)),
    )


def _words(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


if __name__ == "__main__":
    print(page(), end="")
