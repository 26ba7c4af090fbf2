"""Branch coverage of the product: `pytest -p tests.product_coverage`.

SlipCover changes the bytecode of modules as they are imported. Coverage.py would have to trace: Python 3.11 has no
`sys.monitoring`. Only processes that run tests are measured, not the programs that they start.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import slipcover

from tests.rules.source import PRODUCT, ROOT

RESULT = ROOT / "build" / "coverage.json"
_FOLDERS = [str(ROOT / folder) for folder in PRODUCT]
_OMITTED = ["*/tproxy/*"]
"""Instrumented code keeps connections alive longer than the tests of memory allow."""
_measured = slipcover.Slipcover(branch=True, source=_FOLDERS, omit=_OMITTED)
_imports = slipcover.ImportManager(_measured, slipcover.FileMatcher(sources=_FOLDERS, omit=_OMITTED))
_workers: list[dict[str, Any]] = []
_imports.__enter__()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand a worker's result to the process that reports."""
    _imports.__exit__(None, None, None)
    if output := getattr(session.config, "workeroutput", None):
        output["coverage"] = json.dumps(_measured.get_coverage())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if result := getattr(node, "workeroutput", {}).get("coverage"):
        _workers.append(json.loads(result))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if hasattr(config, "workeroutput"):
        return
    result = _measured.get_coverage()
    for worker in _workers:
        slipcover.merge_coverage(result, worker)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result))
    terminalreporter.section("coverage of the product", sep="=")
    terminalreporter.write_line(f"{'':32}lines  branches")
    for package, summary in sorted(_packages(result).items(), key=lambda item: (item[0] == "total", item[0])):
        terminalreporter.write_line(f"{package:32}{_share(summary, 'lines')}    {_share(summary, 'branches')}")


def _packages(result: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return the sums for each package, and for all of them."""
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, file in result["files"].items():
        for package in (".".join(Path(name).resolve().relative_to(ROOT).parent.parts[:2]), "total"):
            for kind, count in file["summary"].items():
                sums[package][kind] += count
    return sums


def _share(summary: dict[str, int], kind: str) -> str:
    covered, missing = summary[f"covered_{kind}"], summary[f"missing_{kind}"]
    return f"{100 * covered / max(1, covered + missing):4.0f}%"
