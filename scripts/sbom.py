"""Generator of deploy/sbom.cdx.json: the Python packages in the image, in CycloneDX format.

python scripts/sbom.py            write the file
python scripts/sbom.py --print    print its contents
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "deploy" / "sbom.cdx.json"
COMMAND = ("-W", "ignore", "-m", "cyclonedx_py", "requirements", "requirements-runtime.lock")
OPTIONS = ("--pyproject", "pyproject.toml", "--output-reproducible")


def sbom() -> str:
    """Return the document. It is reproducible and contains no index address."""
    made = subprocess.run([sys.executable, *COMMAND, *OPTIONS], cwd=ROOT, capture_output=True, check=True, text=True)
    document: dict[str, Any] = json.loads(made.stdout)
    for tool in document["metadata"]["tools"]["components"]:
        tool.pop("externalReferences", None)
    del document["dependencies"]  # the lock is flat and has no dependency graph
    for component in document["components"]:
        del component["description"]  # repeats the line of the lock
        component["bom-ref"] = component["purl"]
        for reference in component["externalReferences"]:
            reference["url"] = component["purl"]
            del reference["comment"]
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(sbom())
    else:
        TARGET.write_text(sbom())
