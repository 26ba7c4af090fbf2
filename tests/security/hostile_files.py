"""Services files that would exhaust, crash or confuse a reader without bounds."""

from __future__ import annotations

SERVICE = '{name: web, command: [sh, "{port}"]}'


def _laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join([*lines, "services: *a11"])


def _merges() -> str:
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join([*lines, "services: [{<<: *a11}]"])


def _chain() -> str:
    lines = ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{<<: *a{n - 1}}}" for n in range(1, 5000))]
    return "\n".join([*lines, "services: [{<<: *a4999}]"])


HOSTILE = {
    "nested lists": "services: " + "[" * 30_000,
    "nested mappings": "services: " + "{a: " * 30_000,
    "nested blocks": "services:\n" + "- " * 30_000 + "x",
    "nested keys": "? " * 30_000 + "x",
    "a number of 5,000 digits": f"services: [{{name: web, command: [sh, '{{port}}'], port: {'9' * 5000}}}]",
    "maxHeld of 5,000 digits": f"services: [{{name: web, command: [sh, '{{port}}'], maxHeld: {'9' * 5000}}}]",
    "a port of 5,000 digits": f"services: [{{name: web, protocol: tcp, command: sh, listen: '1.1.1.1:{'1' * 5000}'}}]",
    "a duration of 5,000 digits": f"services: [{{name: web, command: [sh, '{{port}}'], idleAfter: {'9' * 5000}s}}]",
    "billion laughs": _laughs(),
    "merged billion laughs": _merges(),
    "a chain of merges": _chain(),
    "a mapping in itself": "services: &a [*a]\nlisten: &b {<<: *b}",
    "17 MiB": "#" * (17 * 2**20),
    "a text of 1 MB": f"services: [{{name: {'a' * 1_000_000}, command: [sh, '{{port}}']}}]",
    "a key of 100 KB": f"services: [{{{'k' * 100_000}: x}}]",
    "100,000 services": f"services: [{','.join([SERVICE] * 100_000)}]",
    "15,000 mistakes": f"services: [{','.join(['{x: y}'] * 5_000)}]",
    "escape sequences": 'services: [{name: "\\e]0;owned\\a\\e[31m", command: ["\\e[2J"]}]',
    "NUL": "services: [\0]",
    "not UTF-8": "services: [\udcff]",
    "surrogates": 'services: [{name: "\\ud800"}]',
    "two documents": f"services: [{SERVICE}]\n---\nservices: []",
    "a tag": "services: !!python/object/apply:os.system [touch owned]",
    "keys twice": f"services: [{SERVICE}]\nservices: [{SERVICE}]",
    "an unknown alias": "services: *nothing",
    "a byte order mark alone": "\ufeff",
    "nothing": "",
}
