"""docs/api.md is what the CRD and the annotations' table say. `ZENVOY_GOLDEN=write` (`make golden`) writes it anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from reconciler.core.reasons import Reason
from reconciler.kubernetes.config.annotations import FIELDS
from reconciler.kubernetes.types.scaled_service import ScaledServiceSpec, ScaledServiceStatus
from scripts.api_docs import REASONS

ROOT = Path(__file__).parents[4]
DOCUMENT = ROOT / "docs/api.md"
CRD = ROOT / "deploy/chart/crds/scaledservices.yaml"


def properties() -> dict[str, Any]:
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]
    return found


def test_golden_api_document_equals_crd() -> None:
    script = [sys.executable, str(ROOT / "scripts/api_docs.py")]
    said = subprocess.run(script, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout
    if os.environ.get("ZENVOY_GOLDEN") == "write":
        DOCUMENT.write_text(said)

    assert DOCUMENT.read_text() == said, "make golden writes it anew"


def test_crd_fields_equal_the_decoded_fields() -> None:
    assert set(ScaledServiceSpec.__struct_encode_fields__) == set(properties()["spec"]["properties"])
    assert set(ScaledServiceStatus.__struct_encode_fields__) == set(properties()["status"]["properties"])


def test_annotations_cover_every_spec_field() -> None:
    fields = {field.path.partition(".")[0] for field in FIELDS.values()}
    assert fields == set(properties()["spec"]["properties"]) - {"service"}


def test_problem_reasons_are_documented() -> None:
    sources = [*(ROOT / "reconciler/kubernetes").rglob("*.py"), ROOT / "reconciler/core/validation.py"]
    said = {reason for path in sources for reason in re.findall(r"Problem\(\s*Reason\.(\w+)", path.read_text())}
    assert {Reason[name] for name in said} == set(REASONS)
