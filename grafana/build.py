"""Write the dashboards to files.

`python -m grafana.build` writes them; with `--check` it only reports files that are outdated.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grafana import boards, catalogue, control_plane, fleet, service
from grafana.model import Board

DASHBOARDS = Path(__file__).parent / "dashboards"
BOARDS: tuple[Board, ...] = (fleet.BOARD, service.BOARD, control_plane.BOARD)


def files() -> dict[Path, str]:
    """Return the content of every generated file."""
    dashboards = {DASHBOARDS / f"{board.uid}.json": boards.text(board) for board in BOARDS}
    return {DASHBOARDS / "README.md": catalogue.text(BOARDS), **dashboards}


def outdated() -> list[Path]:
    """Return files that are missing, different, or not expected."""
    wanted = files()
    present = {path: path.read_text() for path in DASHBOARDS.glob("*")}
    return sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))


def write() -> None:
    """Write the generated files and delete all others from the folder."""
    wanted = files()
    DASHBOARDS.mkdir(exist_ok=True)
    for path in outdated():
        if path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()


def main(arguments: list[str]) -> int:
    changed = outdated()
    if "--check" not in arguments:
        write()
    for path in changed:
        print(f"{'outdated' if '--check' in arguments else 'written'}: {path.name}")
    return int("--check" in arguments and bool(changed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
