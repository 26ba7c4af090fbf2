"""The parser of the services file. It returns a `ServicesFile`, or all problems; it does not raise for mistakes.

The keys of the file are those of the ScaledService resource. Conflicts between services over names, hosts, addresses,
and ports, and with the addresses of command-line options, are reported at the later place in the file.
"""

from __future__ import annotations

import os
import pickle
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import yaml

from reconciler.core.address import Address
from reconciler.core.spec import Protocol, Spec
from reconciler.local.services_file.bounds import MAX_BYTES, exceeded, read_bounded
from reconciler.local.services_file.model import FileProblem, Problems, ServicesFile
from reconciler.local.services_file.proxy import read_proxy
from reconciler.local.services_file.service import EXAMPLE, TIMING, Draft, read_service, read_timing
from reconciler.local.services_file.values import Value, given
from reconciler.ports.router import ProxySettings

SAMPLE_INTERVAL_SECONDS = 1.0
SHORTEST_INTERVAL_SECONDS = 0.01
EXPLAINED_CHARACTERS = 512 * 2**10
"""In a longer file, the loader in Python, which has better messages, takes many seconds."""
NOTHING: Mapping[str, Address] = MappingProxyType({})
_KEYS = ("listen", "proxy", "defaults", "services", "sampleInterval")
_LOOPBACK = ip_address("127.0.0.1")
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(
    path: Path, content: bytes | None = None, taken: Mapping[str, Address] = NOTHING
) -> ServicesFile | list[FileProblem]:
    """Return the file, or all its problems in order.

    `content` is its content, if already read; `taken` are the addresses of options, by option.
    """
    problems = Problems(str(path))
    try:
        file = _read(path, content, taken, problems)
        found = problems.found()
        if file is None or (found and not _can_run_in_part(file, found)):
            return found
        # A copy in new memory: the original is scattered among nodes, and would keep their memory allocated.
        encoded = pickle.dumps(replace(file, unavailable=tuple(found)), pickle.HIGHEST_PROTOCOL)
        copied: ServicesFile = pickle.loads(encoded)
        return copied
    except Exception as error:
        named = type(error).__name__ + (f": {error}" if str(error) else "")
        problems.add(f"cannot be read ({named}), which is a bug in zenvoy; undo the latest change, and report it")
        return problems.found()


def _can_run_in_part(file: ServicesFile, problems: Sequence[FileProblem]) -> bool:
    """Return whether the only problems are missing programs and folders of some of the services."""
    affected = {problem.where.partition("]")[0] for problem in problems if problem.is_missing}
    return all(problem.is_missing for problem in problems) and 0 < len(affected) < len(file.services)


def _read(path: Path, content: bytes | None, taken: Mapping[str, Address], problems: Problems) -> ServicesFile | None:
    if content is None:
        try:
            content = read_bounded(path)
        except OSError as error:
            problems.add(f"cannot be read: {error.strerror or error}")
            return None
    root = _root(content, problems)
    del content  # it may be large, and its nodes take much more
    return _file(root, Path(os.path.abspath(path)).parent, taken) if root else None


def _root(content: bytes, problems: Problems) -> Value | None:
    """Return the value of the whole file; None if it is not YAML, is too large, or is empty."""
    if len(content) > MAX_BYTES:
        problems.add(f"the file is larger than {MAX_BYTES // 2**20} MiB; remove what does not belong to it")
        return None
    try:
        text = content.decode()
        node = _graph(text, problems)
    except UnicodeDecodeError as error:
        problems.add("not UTF-8; save the file as UTF-8", _end_of(content[: error.start].decode("latin-1")))
    except yaml.reader.ReaderError as error:
        what = f"character {error.character:#x} is not allowed in YAML; remove it"
        problems.add(what, _end_of(text[: error.position]))
    except yaml.MarkedYAMLError as error:
        _syntax(error, problems)
    else:
        if node is not None and not (isinstance(node, yaml.ScalarNode) and not node.value):
            return Value(node, "", problems)
        if not problems.found():
            problems.add(f"the file is empty; for example services: [{EXAMPLE}]")
    return None


def _end_of(text: str) -> yaml.Mark:
    """Return the place after a text."""
    return yaml.Mark("", len(text), text.count("\n"), len(text) - text.rfind("\n") - 1, None, 0)


def _graph(text: str, problems: Problems) -> yaml.Node | None:
    """Build the nodes within limits. On errors use the loader in Python, whose messages are better than in C."""
    try:
        if over := exceeded(yaml.parse(text, Loader=_Loader)):
            what, event = over
            problems.add(what, event.start_mark)
            return None
        return yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        if len(text) > EXPLAINED_CHARACTERS:
            raise
        return yaml.compose(text, Loader=yaml.SafeLoader)


def _syntax(error: yaml.MarkedYAMLError, problems: Problems) -> None:
    what = f"not YAML: {error.problem or error.context}"
    if error.context and error.problem and error.problem.startswith("but "):
        what = f"not YAML: {error.context}, {error.problem}"
    elif error.context and error.context_mark and error.problem:
        what += f", {error.context} that began in line {error.context_mark.line + 1}"
    if "'\\t'" in what:
        what += "; indent with spaces"
    problems.add(what, error.problem_mark or error.context_mark)


def _file(root: Value, folder: Path, taken: Mapping[str, Address]) -> ServicesFile:
    fields = root.fields(_KEYS, f"services: [{EXAMPLE}]")
    listen = fields["listen"].fields(("http", "tls"), '{http: "127.0.0.1:10000"}') if "listen" in fields else {}
    shared = {kind: (found, value) for kind, value in listen.items() if (found := value.address())}
    addresses = {kind: str(found) for kind, (found, _) in shared.items()}
    interval = given(
        fields, "sampleInterval", lambda value: value.seconds(SHORTEST_INTERVAL_SECONDS), SAMPLE_INTERVAL_SECONDS
    )
    services = _services(root, fields, folder)
    if "listen" not in fields or fields["listen"].is_mapping():
        _need_listeners(services, listen)
    known = [draft.entry.spec.name for draft in services if draft.entry.spec.protocol.is_http]
    own_ports = {draft.listen.port for draft in services if draft.listen}
    _find_conflicts(list(shared.values()), services, taken)
    return ServicesFile(
        listen_http=addresses.get("http"),
        listen_tls=addresses.get("tls"),
        proxy=read_proxy(fields["proxy"], known, own_ports) if "proxy" in fields else ProxySettings(),
        sample_interval=interval,
        services=tuple(draft.entry for draft in services),
    )


def _services(root: Value, fields: Mapping[str, Value], folder: Path) -> list[Draft]:
    defaults = fields["defaults"].fields(TIMING, "{idleAfter: 5m}") if "defaults" in fields else {}
    otherwise = read_timing(defaults, Spec(name=""))
    if "services" not in fields:
        if root.is_mapping():
            root.lacks("services", f"services: [{EXAMPLE}]")
        return []
    items = fields["services"].items(f"services: [{EXAMPLE}]")
    if fields["services"].is_list() and not items:
        fields["services"].wrong(f"empty; for example services: [{EXAMPLE}]")
    for item in items:
        if not item.is_mapping():
            item.mapping(EXAMPLE)
    return [read_service(item, otherwise, folder) for item in items if item.is_mapping()]


def _need_listeners(services: list[Draft], listen: Mapping[str, Value]) -> None:
    """Record missing shared listeners, at the first service that needs each: it has no listener of its own."""
    protocols = [(draft.entry.spec.protocol, draft) for draft in services]
    tls = [draft for protocol, draft in protocols if protocol is Protocol.TLS]
    http = [draft for protocol, draft in protocols if protocol.is_http and "listen" not in draft.fields]
    for kind, port, needing in (("http", 10000, http), ("tls", 10443, tls)):
        if needing and kind not in listen:
            place = needing[0].fields.get("protocol", needing[0].value)
            right = f'listen: {{{kind}: "127.0.0.1:{port}"}}'
            place.wrong(f"{kind} services share a listener; add {right} at the top of the file")


def _find_conflicts(
    listeners: Sequence[tuple[Address, Value]], services: Sequence[Draft], taken: Mapping[str, Address]
) -> None:
    """Record all conflicts, which name the earlier place.

    `listeners` are the shared ones; `taken` has addresses by command-line option.
    """
    _names(services)
    _hosts([draft for draft in services if draft.entry.spec.protocol.is_http])
    _hosts([draft for draft in services if draft.entry.spec.protocol is Protocol.TLS])
    own = [(draft.listen, draft.fields["listen"]) for draft in services if draft.listen]
    _ports(_addresses(taken, [*listeners, *own]), services)


def _names(services: Iterable[Draft]) -> None:
    first: dict[str, Value] = {}
    for draft in services:
        if name := draft.entry.spec.name:
            place = draft.fields["name"]
            if (other := first.setdefault(name, place)) is not place:
                place.wrong(f"{name!r} is already used by {_place(other)}; choose another name")


def _hosts(services: Iterable[Draft]) -> None:
    """Record hosts that two services use. Names count as hosts; equal names are reported by `_names`."""
    pairs = [(host, place, draft) for draft in services for host, place in draft.hosts]
    first = {host: (place, draft) for host, place, draft in reversed(pairs)}
    for host, place, draft in pairs:
        other, owner = first[host]
        if owner is draft or (place is draft.fields.get("name") and other is owner.fields.get("name")):
            continue
        place.wrong(f"{host!r} is already used by {_place(other)}; remove it or choose another host")


def _addresses(taken: Mapping[str, Address], listeners: Iterable[tuple[Address, Value]]) -> list[tuple[Address, str]]:
    """Return all listen addresses with their owners."""
    by_port: defaultdict[int, list[tuple[Address, str]]] = defaultdict(list)
    for whose, address in taken.items():
        by_port[address.port].append((address, whose))
    for address, place in listeners:
        earlier = by_port[address.port]
        if whose := next((whose for other, whose in earlier if address.overlaps(other)), ""):
            place.wrong(f"{address} is already used by {whose}; choose another port")
        earlier.append((address, _place(place)))
    return list(chain.from_iterable(by_port.values()))


def _ports(listeners: Iterable[tuple[Address, str]], services: Iterable[Draft]) -> None:
    """Record conflicts of the ports of commands, with each other and with listen addresses on the loopback device."""
    taken = {address.port: whose for address, whose in listeners if address.overlaps(Address(_LOOPBACK, address.port))}
    for draft in services:
        port = draft.entry.program.port
        if port is None:
            continue
        place = draft.fields["port"]
        if port in taken:
            place.wrong(f"{port} is already used by {taken[port]}; choose another, or remove it to use a free port")
        taken.setdefault(port, _place(place))


def _place(value: Value) -> str:
    return f"{value.where} (line {value.line})"
