"""The project's source files, parsed once, for rules about code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("reconciler", "xds", "tproxy")
EVERYTHING = (*PRODUCT, "bench", "examples", "grafana", "scripts", "tests")

Function = ast.FunctionDef | ast.AsyncFunctionDef
_KEPT = (ast.Module, ast.ClassDef, Function, ast.Import, ast.ImportFrom, ast.ExceptHandler)


@dataclass(frozen=True)
class Module:
    """One parsed file."""

    path: Path
    tree: ast.Module
    lines: int
    nodes: tuple[ast.AST, ...]

    @property
    def relative(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def dotted(self) -> str:
        """The name to import the module by."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def classes(self) -> list[ast.ClassDef]:
        return [node for node in self.tree.body if isinstance(node, ast.ClassDef)]

    @property
    def functions(self) -> list[Function]:
        return [node for node in self.nodes if isinstance(node, Function)]


def modules(*folders: str) -> list[Module]:
    """Return the parsed modules of these top-level folders, sorted by path."""
    return [module for folder in folders for module in _parsed(folder)]


@cache
def _parsed(folder: str) -> list[Module]:
    return [_parse(path) for path in sorted((ROOT / folder).rglob("*.py"))]


def _parse(path: Path) -> Module:
    """Parse a file; of its nodes, keep those that the rules ask for."""
    text = path.read_text()
    tree = ast.parse(text)
    nodes = tuple(node for node in ast.walk(tree) if isinstance(node, _KEPT))
    return Module(path, tree, len(text.splitlines()), nodes)


def statement_lines(function: Function) -> int:
    """Return the length of a function without its decorators and docstring."""
    has_docstring = ast.get_docstring(function, clean=False) is not None
    start = function.body[0].end_lineno if has_docstring else function.lineno
    assert start and function.end_lineno
    return function.end_lineno - start + 1


def docstrings(module: Module) -> Iterator[str]:
    """Yield every docstring, including those below an attribute or a constant."""
    for node in module.nodes:
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            for statement in node.body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    yield str(statement.value.value).strip()


def declares_only(module: Module) -> bool:
    """Return whether a module has no behaviour: protocols, records without methods, and constants."""
    return all(_declares(statement) for statement in module.tree.body)


def _declares(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.ClassDef):
        is_protocol = any(ast.unparse(base).partition("[")[0] == "Protocol" for base in statement.bases)
        return is_protocol or not any(isinstance(node, Function) for node in statement.body)
    return not isinstance(statement, Function)


def imports(module: Module) -> dict[str, str]:
    """Return what each imported name of a module stands for, as a dotted name."""
    found: dict[str, str] = {}
    for node in module.nodes:
        if isinstance(node, ast.Import):
            found.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return found
