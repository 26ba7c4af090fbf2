"""Record a real terminal session into docs/img/session.svg.

The script starts `zenvoy up` with the services of the demo, runs the commands in `COMMANDS` in a pseudo-terminal, and
renders their output. `make session` runs it.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo"
IMAGE = ROOT / "docs" / "img" / "session.svg"
BIN = Path(sys.executable).parent
COLUMNS, ROWS = 96, 40
START_TIMEOUT_SECONDS = 60.0
CHUNK_BYTES = 4096
TITLE = "zenvoy up examples/demo/services.yaml is running"
COMMANDS = (
    "zenvoy status",
    "curl http://hello.localhost:10000/   # not running: held until it has started",
    "zenvoy status",
    "sleep 8; zenvoy status               # no traffic for 4 s: asleep again",
)
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Rich embeds a web font; viewers that block external resources would report it as missing."""
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def run_in_terminal(command: str, environment: Mapping[str, str]) -> str:
    """Run a shell command in a pseudo-terminal; return its output, including escape sequences."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    with subprocess.Popen(
        ["bash", "-c", command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as shell:
        os.close(theirs)
        output = b"".join(_chunks(ours))
    os.close(ours)
    if shell.returncode:
        raise subprocess.CalledProcessError(shell.returncode, command, output)
    return output.decode().replace("\r\n", "\n")


def _chunks(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(terminal, CHUNK_BYTES)
        except OSError:  # Linux reports EIO once the last process has closed the terminal
            return
        if not chunk:
            return
        yield chunk


def render(session: Sequence[tuple[str, str]], title: str) -> str:
    """Render commands and their output as an SVG that refers to no external resource."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for command, output in session:
        entered, comment, remark = command.partition("#")
        console.print(Text.assemble(("$ ", "bold green"), (entered, "bold"), (comment + remark, "dim")))
        console.print(Text.from_ansi(output.rstrip("\n")))
        console.print()
    svg = FONT_FACE.sub("", console.export_svg(title=title, unique_id="session"))
    return re.sub(r"[ \t]+$", "", svg.replace("Fira Code, monospace", FONTS), flags=re.MULTILINE)


@contextmanager
def demo(environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run the services of the demo; enter once they are served."""
    command = [str(BIN / "zenvoy"), "up", "services.yaml"]
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=DEMO, stdout=output, stderr=output, env=environment) as up,
    ):
        try:
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
            while "serving" not in log.read_text():
                if up.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"zenvoy up did not start:\n{log.read_text()}")
                time.sleep(0.1)
            yield
        finally:
            up.terminate()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="zenvoy-session-") as directory:
        environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "TERM": "xterm-256color",
            "ZENVOY_STATE_DIR": f"{directory}/state",
        }
        with demo(environment, Path(directory) / "log"):
            session = [(command, run_in_terminal(command, environment)) for command in COMMANDS]
    IMAGE.parent.mkdir(exist_ok=True)
    IMAGE.write_text(render(session, TITLE))
    print(f"recorded: {IMAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
