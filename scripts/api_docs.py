"""Write docs/api.md to standard output, from the CRD and from the annotations that the reconciler reads.

`python scripts/api_docs.py > docs/api.md`, or `make golden`; a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import yaml

from reconciler.kubernetes.annotations import FIELDS
from reconciler.kubernetes.entries import REASONS
from reconciler.kubernetes.resources import (
    COMMAND_ANNOTATION,
    ENABLED_LABEL,
    FINALIZER,
    MANAGED_LABEL,
    PREFIX,
)

CRD = Path(__file__).parents[1] / "deploy/chart/crds/scaledservices.yaml"
Schema = Mapping[str, Any]

INTRODUCTION = """\
# The Kubernetes API

<!-- Generated: `make golden` writes it anew from deploy/chart/crds/scaledservices.yaml and the annotations' table. -->

`{api_version}`, kind `{kind}`, short name `{short}`, category `{category}`; namespaced.

{description}

```yaml
apiVersion: {api_version}
kind: {kind}
metadata: {{name: web, namespace: shop}}
spec:                      # everything has a default: this would do without any of it
  service: web
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
  port: http
  hosts: [shop.example.com]
  idleAfter: 5m
```

A service is reached, at the proxy, by the names that its Service has in the cluster (`web.shop`, `web.shop.svc`,
`web.shop.svc.cluster.local`), which belong to its namespace alone, and by `hosts`; a tcp service by its port alone.
Durations are written as `500ms`, `30s`, `5m` or `1h30m`.
"""

RULES = """\
## What is refused

The API server refuses these, with these words, and whatever is not of the type or in the range that is said above.

| where | what is right |
|---|---|
"""

SEEN_LATER = """\
What only shows beside the Service and other ScaledServices, such as a port that the Service does not have, is told in
the condition `Ready`, with where it is, what is wrong and what would be right. What was right before stays in force
meanwhile. Of two that claim one host, or one port of the proxy, the older has it, and the younger says so.

| reason | meaning |
|---|---|
"""

LABELS = """\
## Labels and annotations

A Service labelled `{enabled}: "true"` gets a ScaledService of its name, which its annotations fill. Without the label
it is deleted again, which restores the replicas. A mistake in an annotation is told as an Event of the Service and in
`Ready`. A ScaledService that a person made is never touched.

| annotation of the Service | field | written as |
|---|---|---|
{annotations}

| on a ScaledService | is |
|---|---|
| label `{managed}: "true"` | made of a Service's label and annotations |
| annotation `{command}` | the newest command of a person, `wake@` or `sleep@` and a time; carried out once |
| finalizer `{finalizer}` | restores the replicas, and sees whoever waits connected, before the object goes |
"""


def page() -> str:
    crd = yaml.safe_load(CRD.read_text())["spec"]
    (version,) = crd["versions"]
    root = version["schema"]["openAPIV3Schema"]
    spec, status = root["properties"]["spec"], root["properties"]["status"]
    parts = [
        INTRODUCTION.format(
            api_version=f"{crd['group']}/{version['name']}",
            kind=crd["names"]["kind"],
            short=crd["names"]["shortNames"][0],
            category=crd["names"]["categories"][0],
            description=fill(root["description"], 120),
        ),
        "## spec\n\n| field | type | default | meaning |\n|---|---|---|---|\n" + _rows(_spec_rows(spec, "")),
        RULES + _rows(_refused(root)),
        SEEN_LATER + _rows(f"| `{reason}` | {meaning} |" for reason, meaning in REASONS.items()),
        "## status\n\n| field | type | meaning |\n|---|---|---|\n" + _rows(_status_rows(status, "")),
        _columns(version),
        LABELS.format(
            enabled=ENABLED_LABEL,
            managed=MANAGED_LABEL,
            command=COMMAND_ANNOTATION,
            finalizer=FINALIZER,
            annotations=_rows(_annotation_rows()).rstrip(),
        ),
    ]
    return "\n".join(parts)


def _spec_rows(schema: Schema, before: str) -> Iterator[str]:
    for name, field in schema["properties"].items():
        where = f"{before}{name}"
        if "properties" in field:
            yield f"| `{where}` | object | | {_text(field['description'])} |"
            yield from _spec_rows(field, f"{where}.")
        else:
            yield f"| `{where}` | {_type(field)} | {_default(field)} | {_text(field['description'])} |"


def _status_rows(schema: Schema, before: str) -> Iterator[str]:
    for name, field in schema["properties"].items():
        where = f"{before}{name}"
        yield f"| `{where}` | {_type(field)} | {_text(field['description'])} |"
        if "properties" in field.get("items", {}):
            yield from _status_rows(field["items"], f"{where}[].")


def _refused(root: Schema) -> Iterator[str]:
    """Each message once, with all that it is said of."""
    places: dict[str, list[str]] = {}
    for where, message in _rules(root, ""):
        places.setdefault(message, []).append(f"`{where}`")
    for message, named in places.items():
        yield f"| {', '.join(named)} | {_text(message)} |"


def _rules(schema: Schema, where: str) -> Iterator[tuple[str, str]]:
    """Messages; a rule that is about one of its fields stands with that field."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"{where}{rule.get('fieldPath', '')}".removeprefix("."), rule["message"]
    for name, field in schema.get("properties", {}).items():
        if name not in ("status", "metadata"):
            yield from _rules(field, f"{where}.{name}" if where else name)
    if "items" in schema:
        yield from _rules(schema["items"], f"{where}[]")


def _type(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if any("duration" in rule["message"] for rule in field.get("x-kubernetes-validations", ())):
        return "duration"
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if field["type"] == "array":
        return f"list of {field['items']['type']}s"
    bounds = f" {field['minimum']} to {field['maximum']}" if {"minimum", "maximum"} <= field.keys() else ""
    return str({"date-time": "time"}.get(field.get("format", ""), field["type"])) + bounds


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _annotation_rows() -> Iterator[str]:
    for name, field in FIELDS.items():
        yield f"| `{PREFIX}{name}` | `{field.path}` | `{field.example}` |"


def _columns(version: Schema) -> str:
    shown = [column for column in version["additionalPrinterColumns"] if not column.get("priority")]
    wide = [column for column in version["additionalPrinterColumns"] if column.get("priority")]
    words = [", ".join(column["name"].upper() for column in some) for some in (shown, wide)]
    return f"`kubectl get ssvc` shows {words[0]}; with `-o wide`, {words[1]} too.\n"


def _rows(rows: Any) -> str:
    return "".join(f"{row}\n" for row in rows)


def _text(text: str) -> str:
    return text.replace("|", "\\|").strip()


if __name__ == "__main__":
    print(page(), end="")
