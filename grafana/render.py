"""`python -m grafana.render`: run zenvoy for a while, and draw every dashboard's real data into docs/img.

Options: `--seconds N` for how long to run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from grafana.answers import Span, Viewer
from grafana.build import BOARDS
from grafana.picture import picture
from grafana.scene import SCRAPE_SECONDS, SHOWN, Scene, running

IMAGES = Path(__file__).parents[1] / "docs" / "img"
POINTS = 300
"""How many a panel gets over the range, about."""


def viewer(scene: Scene, end: float) -> Viewer:
    """Somebody who looks at the whole of a scene until then, and at the service `SHOWN`."""
    start = scene.began_at
    span = Span(start, end, max(SCRAPE_SECONDS, round((end - start) / POINTS, 1)))
    return Viewer(scene.prometheus, span, {"namespace": ".*", "services": ".*", "service": SHOWN}, SCRAPE_SECONDS)


def render(everything: Viewer, folder: Path) -> list[Path]:
    """Draw all dashboards; the pictures' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for board in BOARDS:
        path = folder / f"{board.uid.replace('zenvoy-', 'dashboard-')}.png"
        picture(board, everything, path)
        paths.append(path)
    return paths


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m grafana.render", description=__doc__)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--folder", type=Path, default=IMAGES)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as scene:
        end = scene.play(chosen.seconds)
        for path in render(viewer(scene, end), chosen.folder):
            print(f"drawn: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
