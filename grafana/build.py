"""`python -m grafana.build`: write the dashboards; with `--check`, say whether they are what would be written."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana import boards, catalogue, control_plane, fleet, service
from grafana.model import Board

DASHBOARDS = Path(__file__).parent / "dashboards"
BOARDS: tuple[Board, ...] = (fleet.BOARD, service.BOARD, control_plane.BOARD)


def files() -> dict[Path, str]:
    """Every file that there should be, with its text."""
    dashboards = {DASHBOARDS / f"{board.uid}.json": boards.text(board) for board in BOARDS}
    return {DASHBOARDS / "README.md": catalogue.text(BOARDS), **dashboards}


def outdated() -> list[Path]:
    """Files that are missing, other than they should be, or should not be."""
    wanted = files()
    present = {path: path.read_text() for path in DASHBOARDS.glob("*")}
    return sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))


def write() -> None:
    """Make the folder hold exactly these files."""
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
