"""Write deploy/sbom.cdx.json: the Python packages of the image, as CycloneDX, from requirements-runtime.lock.

python scripts/sbom.py            write it
python scripts/sbom.py --print    print what it should be
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
    """Return the document, the same for the same lock, and without the address of an index."""
    made = subprocess.run([sys.executable, *COMMAND, *OPTIONS], cwd=ROOT, capture_output=True, check=True, text=True)
    document: dict[str, Any] = json.loads(made.stdout)
    for tool in document["metadata"]["tools"]["components"]:
        tool.pop("externalReferences", None)
    del document["dependencies"]  # the lock is flat: nothing is known of what needs what
    for component in document["components"]:
        del component["description"]  # the line of the lock again
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
