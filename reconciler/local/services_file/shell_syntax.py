"""Shell syntax in a command, which has no effect: zenvoy starts programs without a shell. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import PurePath
from textwrap import shorten

from reconciler.local.processes.program import PLACEHOLDER

SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "ash", "busybox")
BUILTINS = ("cd", "export", "source", ".", "set", "ulimit", "umask", "eval")
_OPERATOR = re.compile(r"&&|\|\||\||;|\d?>&\d|&>>?|\d?>>?|<<?|&")
_REDIRECTION = re.compile(r"(?:\d?>>?|&>>?|<<?)(?:&\d|[\w./~-]*)")
_VARIABLE = re.compile(r"(?<!\$)\$(?:\{([A-Za-z_]\w*)(?:[^\w}][^}]*)?\}|([A-Za-z_]\w*))")
_SUBSTITUTION = re.compile(r"`|\$\(")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_NEXT_LINE = re.compile(r"\n([^\s'{-]\S*)")
"""A line that is not the rest of a command: it is not indented, and begins with no option, quote, or placeholder."""
_COMMENT = re.compile(r"(?<!\S)#.*")
_SINGLE_QUOTED = re.compile(r"\\.|'[^']*'", re.DOTALL)


def shell_syntax(words: Sequence[str], text: str | None, variables: Collection[str]) -> str | None:
    """Return what is wrong and how to fix it, or None if the command needs no shell.

    `text` is the command as it was written, if it was not a list. In a list, only `variables` and `PORT` count as shell
    variables: other words with a `$` may be meant literally.
    """
    if not words or is_script(words):
        return None
    if found := _ASSIGNMENT.fullmatch(words[0]):
        return f"{words[0]!r} is not a program; set the variable with env: {{{found[1]}: {found[2] or '...'}}}"
    if words[0] == "exec":
        return "'exec' is not a program; remove it"
    if words[0] == "cd" and len(words) > 1:
        return f"'cd' needs a shell; set workingDirectory: {words[1].rstrip(';')}, and start with the program"
    operator = _operator(words) if text is None else _operator_in(text)
    if operator is None and words[0] in BUILTINS:
        return f"{words[0]!r} is a command of the shell, not a program; {_with_shell(words, text)}"
    if operator is not None:
        return f"{operator!r} needs a shell, which does not run the command; {_remedy(operator, words, text)}"
    if text is not None and (problem := _line_problem(text)):
        return problem
    if home := next((word for word in words if word.startswith("~/")), None):
        return f"'~' in {home!r} needs a shell; write the full path"
    if text is not None and (found := _SUBSTITUTION.search(_SINGLE_QUOTED.sub("", text))):
        return f"{found[0]!r} needs a shell, which does not run the command; {_with_shell(words, text)}"
    return _variable(words, text, variables)


def joined_lines(text: str) -> str:
    """Return the text without the backslashes that continue a line, which a shell removes outside single quotes."""

    def joined(found: re.Match[str]) -> str:
        return found[0] if found[0][0] == "'" else _ESCAPED.sub(lambda one: one[0].replace("\\\n", ""), found[0])

    return _QUOTED.sub(joined, text)


def is_script(words: Sequence[str]) -> bool:
    """Return whether a shell runs the command: `sh -c '...'`."""
    return PurePath(words[0]).name in SHELLS and any(re.fullmatch(r"-[a-z]*c", word) for word in words[1:4])


def _operator(words: Sequence[str]) -> str | None:
    """Return the first operator of a list; `;` and `&` can be words of a program."""
    return next((word for word in words[1:] if word in ("&&", "||", "|") or _REDIRECTION.fullmatch(word)), None)


def _operator_in(text: str) -> str | None:
    """Return the first operator outside quotes at the start or at the end of a word; `a&b` can be part of a URL."""
    bare = _QUOTED.sub(lambda found: "q" * len(found[0]), PLACEHOLDER.sub("0", text))
    for found in _OPERATOR.finditer(bare):
        before, after = bare[: found.start()][-1:], bare[found.end() :][:1]
        if before.isspace() or not after or after.isspace():
            return found[0]
    return None


def _line_problem(text: str) -> str | None:
    """Return the problem of a comment, or of a line that a shell would run as another command."""
    bare = _QUOTED.sub(lambda found: "'" * len(found[0]), text)
    if found := _COMMENT.search(bare):
        comment = shorten(text[found.start() : found.end()], 40)
        return f"{comment!r} is a comment for a shell, and part of the command without one; remove it"
    if found := _NEXT_LINE.search(bare):
        right = 'for one command, write "command: >"; for several, use a shell: [sh, -c, "..."]'
        return f"the line of {found[1]!r} would be another command, which needs a shell; {right}"
    return None


def _remedy(operator: str, words: Sequence[str], text: str | None) -> str:
    if ">" in operator:
        return "remove the redirection, because zenvoy keeps the output (`zenvoy logs`)"
    if operator == "&":
        return "remove it, because the program must stay in the foreground"
    return _with_shell(words, text)


def _with_shell(words: Sequence[str], text: str | None) -> str:
    script = " ".join(words) if text is None else text
    quoted = script.replace("'", "''")
    return f"use a shell: [sh, -c, '{quoted}']"


def _variable(words: Sequence[str], text: str | None, variables: Collection[str]) -> str | None:
    """Return the problem of the first shell variable outside single quotes."""
    known = {"PORT", "port", *variables}
    places = [_SINGLE_QUOTED.sub("", text)] if text is not None else [word for word in words if " " not in word]
    for found in (found for place in places for found in _VARIABLE.finditer(place)):
        name = found[1] or found[2]
        if name in ("PORT", "port"):
            return f'{found[0]!r} needs a shell; use "{{port}}"'
        if text is not None or name in known:
            return f"{found[0]!r} needs a shell; write its value, or {_with_shell(words, text)}"
    return None
