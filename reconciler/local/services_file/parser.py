"""Reads a services file, for `zenvoy up` and `zenvoy check`.

Rule: either everything is right and there is a `ServicesFile`, or there is the list of all that is wrong; nothing is
raised for a mistake of a person. The words in the file are those of the ScaledService resource.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import yaml

from reconciler.core.address import Address
from reconciler.core.spec import Protocol, Spec
from reconciler.local.services_file.addresses import address
from reconciler.local.services_file.bounds import exceeded, read_bounded, too_large
from reconciler.local.services_file.conflicts import find_conflicts
from reconciler.local.services_file.model import ServicesFile
from reconciler.local.services_file.problems import Problem, Problems
from reconciler.local.services_file.service import EXAMPLE, TIMING, Draft, read_service, read_timing
from reconciler.local.services_file.values import Value

SAMPLE_INTERVAL_SECONDS = 1.0
SHORTEST_INTERVAL_SECONDS = 0.01
WORDED_CHARACTERS = 512 * 2**10
"""Beyond, the loader in Python takes many seconds to find a mistake."""
NOTHING: Mapping[str, Address] = MappingProxyType({})
_KEYS = ("listen", "defaults", "services", "sampleInterval")
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(
    path: Path, content: bytes | None = None, taken: Mapping[str, Address] = NOTHING
) -> ServicesFile | list[Problem]:
    """The file, or all its mistakes in order. `content` is what it says, where that is known already; `taken` is where
    nothing of it can listen, by whose that is."""
    problems = Problems(str(path))
    try:
        file = _read(path, content, taken, problems)
        return problems.found() or (_gathered(file) if file else [])
    except Exception as error:
        problems.add(0, 0, "", _unforeseen(error))
        return problems.found()


def _unforeseen(error: Exception) -> str:
    """Word a failure that no check foresaw: the file is not applied, and nothing else happens."""
    named = type(error).__name__ + (f": {error}" if str(error) else "")
    return f"it cannot be read ({named}); undo the latest change, and report this as a fault of zenvoy"


def _read(path: Path, content: bytes | None, taken: Mapping[str, Address], problems: Problems) -> ServicesFile | None:
    root = _root(path, content, problems)
    return _file(root, Path(os.path.abspath(path)).parent, taken) if root else None


def _gathered(file: ServicesFile) -> ServicesFile:
    """The same, copied once the nodes are gone: what lasts lay scattered among them, and kept all of their memory."""
    copied: ServicesFile = pickle.loads(pickle.dumps(file, pickle.HIGHEST_PROTOCOL))
    return copied


def _root(path: Path, content: bytes | None, problems: Problems) -> Value | None:
    try:
        content = read_bounded(path) if content is None else content
    except OSError as error:
        problems.add(0, 0, "", f"it cannot be read: {error.strerror or error}")
        return None
    if large := too_large(content):
        problems.add(0, 0, "", large)
        return None
    try:
        text = content.decode()
        node = _graph(text, problems)
    except UnicodeDecodeError as error:
        before = content[: error.start]
        column = error.start - before.rfind(b"\n")
        problems.add(before.count(b"\n") + 1, column, "", "this is not UTF-8; save the file as UTF-8")
        return None
    except yaml.reader.ReaderError as error:
        before_it = text[: error.position]
        line, column = before_it.count("\n") + 1, error.position - before_it.rfind("\n")
        problems.add(line, column, "", f"character {error.character:#x} may not be in YAML; take it out")
        return None
    except yaml.MarkedYAMLError as error:
        _syntax(error, problems)
        return None
    if problems.any:
        return None
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        problems.add(0, 0, "", f"the file is empty; write at least services: [{EXAMPLE}]")
        return None
    return Value(node, "", problems)


def _graph(text: str, problems: Problems) -> yaml.Node | None:
    """Build the nodes, within bounds; mistakes are worded by the loader in Python, better than by that in C."""
    try:
        if over := exceeded(yaml.parse(text, Loader=_Loader)):
            problems.add(over.line, over.column, "", over.what)
            return None
        return yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        if len(text) > WORDED_CHARACTERS:
            raise
        return yaml.compose(text, Loader=yaml.SafeLoader)


def _syntax(error: yaml.MarkedYAMLError, problems: Problems) -> None:
    mark = error.problem_mark or error.context_mark
    what = f"this is not YAML: {error.problem or error.context}"
    if error.context and error.problem and error.problem.startswith("but "):
        what = f"this is not YAML: {error.context}, {error.problem}"
    elif error.context and error.context_mark and error.problem:
        what += f", {error.context} that began in line {error.context_mark.line + 1}"
    if "'\\t'" in what:
        what += "; indent with spaces"
    problems.add(mark.line + 1 if mark else 0, mark.column + 1 if mark else 0, "", what)


def _file(root: Value, folder: Path, taken: Mapping[str, Address]) -> ServicesFile:
    fields = root.fields(_KEYS, f"services: [{EXAMPLE}]")
    listen = fields["listen"].fields(("http", "tls"), '{http: "127.0.0.1:10000"}') if "listen" in fields else {}
    shared = {kind: (found, value) for kind, value in listen.items() if (found := address(value))}
    interval = fields["sampleInterval"].seconds(least=SHORTEST_INTERVAL_SECONDS) if "sampleInterval" in fields else None
    services = _services(root, fields, folder)
    if "listen" not in fields or fields["listen"].is_mapping():
        _need_listeners(services, listen)
    find_conflicts(list(shared.values()), services, taken)
    return ServicesFile(
        listen_http=_said(shared, "http"),
        listen_tls=_said(shared, "tls"),
        sample_interval=interval or SAMPLE_INTERVAL_SECONDS,
        services=tuple(draft.entry for draft in services),
    )


def _services(root: Value, fields: Mapping[str, Value], folder: Path) -> list[Draft]:
    defaults = fields["defaults"].fields(TIMING, "{idleAfter: 5m}") if "defaults" in fields else {}
    otherwise = read_timing(defaults, Spec(name=""))
    if "services" not in fields:
        if root.is_mapping():
            root.wrong(f"services is missing; write at least services: [{EXAMPLE}]")
        return []
    items = fields["services"].items(f"services: [{EXAMPLE}]")
    if fields["services"].is_list() and not items:
        fields["services"].wrong(f"there is no service; write at least services: [{EXAMPLE}]")
    for item in items:
        if not item.is_mapping():
            item.mapping(EXAMPLE)
    return [read_service(item, otherwise, folder) for item in items if item.is_mapping()]


def _need_listeners(services: list[Draft], listen: Mapping[str, Value]) -> None:
    """Said once for each kind, at the first service that needs it."""
    needed = {_kind(draft.entry.spec.protocol): draft for draft in reversed(services)}
    for kind, port in (("http", 10000), ("tls", 10443)):
        if kind in needed and kind not in listen:
            place = needed[kind].fields.get("protocol", needed[kind].value)
            right = f'listen: {{{kind}: "127.0.0.1:{port}"}}'
            place.wrong(f"{kind} services need a listener that they share; write at the top of the file {right}")


def _kind(protocol: Protocol) -> str:
    return "http" if protocol.is_http else str(protocol)


def _said(shared: Mapping[str, tuple[Address, Value]], kind: str) -> str | None:
    return str(shared[kind][0]) if kind in shared else None
