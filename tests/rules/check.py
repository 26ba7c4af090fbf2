"""The rules about code: each returns the names of its violations."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import UnionType

from tests.rules.language import old_phrases
from tests.rules.source import (
    EVERYTHING,
    PRODUCT,
    ROOT,
    Function,
    Module,
    declares_only,
    docstrings,
    imports,
    modules,
    statement_lines,
)

MODULE_LINES_MAX, MODULE_LINES_MIN, FUNCTION_LINES_MAX = 450, 40, 40
PACKAGE_MODULES_MAX = 14
TEST_NAME_MAX = 60
DOCSTRING_OPENINGS = ("What", "Whether", "Who", "Which", "How", "Of", "All")
OLD_NAMES = tomllib.loads(Path(__file__).with_name("old_names.toml").read_text())


def long_modules() -> list[str]:
    return [module.path.name for module in modules(*PRODUCT) if module.lines > MODULE_LINES_MAX]


def short_modules() -> list[str]:
    """Return the modules that are too small to be found; packages' own files, protocols and constants are exempt."""
    return [
        module.path.name
        for module in modules(*PRODUCT)
        if module.lines < MODULE_LINES_MIN and not module.path.stem.startswith("__") and not declares_only(module)
    ]


def long_functions() -> list[str]:
    """Return the functions whose statements, without decorators and docstring, take too many lines."""
    return [
        function.name
        for module in modules(*PRODUCT)
        for function in module.functions
        if statement_lines(function) > FUNCTION_LINES_MAX
    ]


def inherited_classes() -> list[str]:
    """Return the classes that extend a concrete class of another module.

    Protocols, ABCs, errors and classes with an empty body are not concrete.
    """
    defined = {f"{module.dotted}.{node.name}": node for module in modules(*PRODUCT) for node in module.classes}
    found = []
    for module in modules(*PRODUCT):
        meanings = imports(module)
        for node in module.classes:
            bases = [meanings.get(ast.unparse(base).partition("[")[0], "") for base in node.bases]
            if any(base in defined and _is_concrete(defined[base]) for base in bases):
                found.append(node.name)
    return found


def _is_concrete(node: ast.ClassDef) -> bool:
    is_empty = all(isinstance(statement, ast.Expr | ast.Pass) for statement in node.body)
    bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
    return (
        not is_empty
        and not bases & {"Protocol", "ABC", "Exception"}
        and not any(base.endswith("Error") for base in bases)
    )


def repeated_classes() -> list[str]:
    """Return the public class names that the product defines more than once, once for each definition too many."""
    names = Counter(
        node.name for module in modules(*PRODUCT) for node in module.classes if not node.name.startswith("_")
    )
    return [name for name, count in names.items() for _ in range(count - 1)]


def docstring_openings() -> list[str]:
    """Return the first lines of docstrings that begin with a question word instead of a verb or a noun."""
    opening = re.compile(rf"({'|'.join(DOCSTRING_OPENINGS)})\b")
    return [
        text.splitlines()[0] for module in modules(*EVERYTHING) for text in docstrings(module) if opening.match(text)
    ]


def long_test_names() -> list[str]:
    return [
        function.name
        for module in modules("tests")
        for function in module.functions
        if function.name.startswith("test_") and len(function.name) > TEST_NAME_MAX
    ]


def import_circles() -> list[str]:
    """Return the modules of the product that import themselves by way of others."""
    graph = _import_graph()
    return sorted(name.rpartition(".")[2] for name in graph if name in _reachable(graph, name))


def _import_graph() -> dict[str, set[str]]:
    known = {module.dotted for module in modules(*PRODUCT)}
    return {module.dotted: set(_imported(module, known)) - {module.dotted} for module in modules(*PRODUCT)}


def _imported(module: Module, known: set[str]) -> Iterator[str]:
    """Yield the modules behind a module's imports: `from package import name` may name a module or a member."""
    for name in imports(module).values():
        owner = name.rpartition(".")[0]
        if name in known or owner in known:
            yield name if name in known else owner


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(graph[name])
    return seen


def large_packages() -> list[str]:
    """Return the packages that have too many modules of their own, sub-packages aside."""
    sizes = Counter(module.path.parent.name for module in modules(*PRODUCT) if not module.is_package)
    return [name for name, size in sizes.items() if size > PACKAGE_MODULES_MAX]


def old_names() -> list[str]:
    """Return the names that were replaced and that code or documents still use; the table is `old_names.toml`."""
    return [*_old_modules(), *_old_definitions("classes", ast.ClassDef), *_old_definitions("functions", Function)]


def _old_modules() -> Iterator[str]:
    documents = _documents()
    for name in OLD_NAMES["modules"]:
        package, _, stem = name.rpartition("/")
        exists = any(
            module.path.stem == stem and package in module.path.relative_to(ROOT).parts for module in modules(*PRODUCT)
        )
        if exists or re.search(rf"\b{package}[/.]{stem}\b(?!/)", documents):
            yield name


def _old_definitions(kind: str, node_type: type | UnionType) -> Iterator[str]:
    spans = set(re.findall(r"`(\w+)(?:\(\))?`", _documents()))
    for name in OLD_NAMES[kind]:
        package, _, identifier = name.rpartition("/")
        defined = any(
            isinstance(node, node_type) and getattr(node, "name", None) == identifier
            for module in modules(*PRODUCT)
            if package in module.path.relative_to(ROOT).with_suffix("").parts
            for node in module.nodes
        )
        if defined or (kind == "classes" and identifier in spans and identifier not in OLD_NAMES["ordinary"]):
            yield name


@cache
def _documents() -> str:
    """Return the text of all documents except the changelog, which lists what was renamed."""
    paths = {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {ROOT / "CHANGELOG.md"}
    return "\n".join(path.read_text() for path in sorted(paths))


RULES: Mapping[str, Callable[[], list[str]]] = {
    rule.__name__: rule
    for rule in (
        long_modules,
        short_modules,
        long_functions,
        inherited_classes,
        repeated_classes,
        docstring_openings,
        long_test_names,
        import_circles,
        large_packages,
        old_names,
        old_phrases,
    )
}
