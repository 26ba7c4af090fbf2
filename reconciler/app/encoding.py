"""Standard streams, and files and output in any locale.

Files are UTF-8, and characters that the output lacks become similar ASCII.
"""

from __future__ import annotations

import codecs
import locale
import os
import sys

ERRORS = "zenvoy.ascii"
"""The handler of errors that replaces what cannot be encoded, and never fails."""
_ASCII = {"→": "->", "…": "...", "µ": "u", "≥": ">="}


def _look_alike(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what cannot be encoded, by similar ASCII or an escape such as \\u20ac."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text), error.end


codecs.register_error(ERRORS, _look_alike)


def open_missing_streams() -> None:
    """Open `/dev/null` for each standard stream that was closed when the program started, as by `>&-` in a shell.

    Otherwise the next file or socket would get its descriptor, and receive the output of the programs of services.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


def restart_in_utf8() -> None:
    """Run this process again in Python's UTF-8 mode, if the names of files and programs have another encoding.

    A services file is UTF-8, and so are the paths, arguments, and variables in it. Unlike `PYTHONUTF8`, the options of
    Python are not inherited, so the programs of services keep their locale.
    """
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def degrade_output() -> None:
    """Replace, in standard output and standard error, characters that cannot be encoded."""
    is_restarted = "utf8" in sys._xoptions and not os.environ.get("PYTHONIOENCODING")
    encoding = locale.getencoding() if is_restarted else None
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=encoding, errors=ERRORS)
