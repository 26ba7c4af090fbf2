"""The rule files: validity, cases for each alert that fire and that do not, and a runbook for each alert."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.metrics.definitions import SERVICE_FAMILIES
from scripts.metrics_docs import CONTROL_FAMILIES

pytestmark = pytest.mark.prometheus

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy/prometheus").glob("*.yaml"))
CASES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
RUNBOOKS = ROOT / "docs/runbooks"
URL = "https://github.com/zenvoy/zenvoy/blob/main/"
SEVERITIES = {"info", "warning", "critical"}
WANTED = {
    *("ServiceStuckWaking", "WakeFailing", "WakesSlow", "HoldsRefused", "TrafficUnknown", "RecordsFailing"),
    *(
        "CertificateExpires",
        "ControllerDown",
        "NoLeader",
        "EnvoyRejectsConfig",
        "HolderDisconnected",
        "ServiceFlapping",
    ),
}
HEADINGS = ["## Investigate", "## Causes", "## Remedies"]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def test_rules_are_valid() -> None:
    promtool("check", "rules", *RULES)
    assert ALERTS.keys() == WANTED


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_rule_cases_pass(cases: Path) -> None:
    promtool("test", "rules", cases)


@pytest.mark.parametrize("alert", sorted(WANTED))
def test_alert_has_a_firing_and_a_silent_case(alert: str) -> None:
    tests = yaml.safe_load((Path(__file__).parent / f"rules/{alert}.yaml").read_text())["tests"]
    looks = [look for test in tests for look in test["alert_rule_test"] if look["alertname"] == alert]

    assert {bool(look["exp_alerts"]) for look in looks} == {True, False}


@pytest.mark.parametrize("alert", sorted(WANTED))
def test_alert_has_severity_annotations_and_runbook(alert: str) -> None:
    rule = ALERTS[alert]

    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{URL}docs/runbooks/{alert}.md"
    page = (RUNBOOKS / f"{alert}.md").read_text()
    assert page.startswith(f"# {alert}\n")
    assert [line for line in page.splitlines() if line.startswith("## ")] == HEADINGS


def test_runbook_has_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == WANTED


def test_runbook_links_have_an_existing_target() -> None:
    for path in RUNBOOKS.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def queries() -> dict[str, list[str]]:
    """Return the queries in the commands of each runbook."""
    asked = re.compile(r"promtool query instant \$PROMETHEUS (?:'([^']+)'|(\S+))")
    pages = {path.name: asked.findall(path.read_text()) for path in RUNBOOKS.glob("*.md")}
    return {name: [quoted or bare for quoted, bare in found] for name, found in pages.items()}


def test_runbook_queries_are_valid(tmp_path: Path) -> None:
    found = [query for queries_of in queries().values() for query in queries_of]
    as_rules = [{"record": f"q{number}", "expr": query} for number, query in enumerate(found)]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": as_rules}]}))

    assert found
    promtool("check", "rules", tmp_path / "queries.yaml")


def test_rules_and_runbooks_use_only_existing_metrics() -> None:
    exported = {family.sample_name for family in (*SERVICE_FAMILIES, *CONTROL_FAMILIES)}
    exported |= {f"{name}_{part}" for name in exported for part in ("bucket", "sum", "count")}
    exported |= {rule["record"] for rule in rules() if "record" in rule}
    exported |= set(re.findall(r"`(zenvoy_holder_\w+)`", (ROOT / "docs/metrics.md").read_text()))
    asked = [rule["expr"] for rule in rules()] + [query for found in queries().values() for query in found]
    asked += [text for rule in rules() for text in rule.get("annotations", {}).values()]

    named = {name for query in asked for name in re.findall(r"[\w:]*zenvoy_[\w:]+|zenvoy:[\w:]+", query)}
    assert named <= exported, named - exported
