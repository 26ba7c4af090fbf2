"""Shell syntax in commands: what needs a shell is found, and what programs may receive is not."""

from __future__ import annotations

import shlex

import pytest

from reconciler.local.services_file.shell_syntax import joined_lines, shell_syntax


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("serve --port $PORT", 'use "{port}"'),
        ("serve --port ${PORT}", 'use "{port}"'),
        ('serve "--port=$PORT"', 'use "{port}"'),
        (["serve", "--port", "$PORT"], 'use "{port}"'),
        (["serve", "--data=${DATA}"], "write its value, or use a shell: [sh, -c, 'serve --data=${DATA}']"),
        ("serve --port ${PORT:-8080}", 'use "{port}"'),
        ("serve --port ${port}", 'use "{port}"'),
        (["serve", "--port=$port"], 'use "{port}"'),
        ("serve --data $HOME/data {port}", "write its value"),
        ("serve --data ${data_dir:?} {port}", "write its value"),
        ("serve --threads $(nproc) {port}", "use a shell: [sh, -c, 'serve --threads $(nproc) {port}']"),
        ("serve --threads `nproc` {port}", "use a shell"),
        ("serve {port} > serve.log", "remove the redirection"),
        ("serve {port} 2>&1", "remove the redirection"),
        ("serve {port} >>serve.log", "remove the redirection"),
        (["serve", "{port}", "2>/dev/null"], "remove the redirection"),
        ("serve {port} &", "must stay in the foreground"),
        ("migrate && serve {port}", "use a shell: [sh, -c, 'migrate && serve {port}']"),
        ("migrate; serve {port}", "use a shell"),
        ("serve {port} | tee log", "use a shell"),
        (["migrate", "&&", "serve", "{port}"], "use a shell: [sh, -c, 'migrate && serve {port}']"),
        ("migrate\nserve {port}\n", "the line of 'serve' would be another command"),
        ("serve\n\n0.0.0.0 {port}", "the line of '0.0.0.0' would be another command"),
        ('serve {port} # see "a"', '# see "a"\' is a comment for a shell'),
        ("cd app && serve {port}", "set workingDirectory: app"),
        ("cd app; serve {port}", "set workingDirectory: app"),
        ("source env.sh", "command of the shell"),
        ("exec serve {port}", "remove it"),
        ("DEBUG=1 serve {port}", "env: {DEBUG: 1}"),
        ("~/bin/serve {port}", "write the full path"),
        ("serve --data ~/data {port}", "write the full path"),
    ],
)
def test_shell_syntax_is_found_with_its_remedy(command: str | list[str], part: str) -> None:
    text = command if isinstance(command, str) else None
    words = shlex.split(command) if isinstance(command, str) else command
    assert part in (shell_syntax(words, text, ["DATA"]) or "nothing found")


@pytest.mark.parametrize(
    "command",
    [
        "serve {port}",
        "serve\n--verbose\n{port}\n",
        "serve\n  0.0.0.0\n  {port}\n",
        "serve\n 'a\nb' \"# c\" a#b {port}",
        "serve --url http://127.0.0.1/?a=1&b=2 {port}",
        "serve 'a && b > $HOME' {port}",
        "nginx -g 'daemon off;'",
        'sh -c "cd app && exec serve $PORT > log"',
        "bash -lc 'exec serve $PORT'",
        ["sh", "-c", "exec serve $PORT > log"],
        ["find", ".", "-exec", "serve", ";"],
        ["perl", "-e", "$SIG{TERM} = sub { exit }; print $ENV{PORT}"],
        ["serve", "--password", "pa$WORD", "{port}"],
        ["serve", "--filter", "a>b", "{port}"],
        ["serve", "$$PORT"],
        [],
    ],
)
def test_words_that_programs_receive_are_no_shell_syntax(command: str | list[str]) -> None:
    text = command if isinstance(command, str) else None
    words = shlex.split(command) if isinstance(command, str) else command
    assert shell_syntax(words, text, ["DATA"]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("serve \\\n  --port {port}\n", ["serve", "--port", "{port}"]),
        ('serve "a\\\nb" \\\\\n c', ["serve", "ab", "\\", "c"]),
        ("serve 'a\\\nb'", ["serve", "a\\\nb"]),
        ('serve "it\'s" \\\n "it\'s"', ["serve", "it's", "it's"]),
    ],
)
def test_joined_lines_are_those_of_a_shell(text: str, words: list[str]) -> None:
    assert shlex.split(joined_lines(text)) == words
