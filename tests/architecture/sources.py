"""Our own source, parsed: what the architecture tests walk over."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "runledger"


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    return {_name(path): ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def path_of(module: str) -> Path:
    inner = ROOT.joinpath(*module.split("."))
    return inner / "__init__.py" if inner.is_dir() else inner.with_suffix(".py")


def imports(module: str) -> set[str]:
    """The modules that ``module`` imports, at any depth of its code; ours by their full name."""
    return {name for node in ast.walk(modules()[module]) for name in _imported(node)}


def imports_at_load(module: str) -> set[str]:
    """Those that are imported when the module is: not inside a function, not for the type checker only."""
    return {name for node in _at_load(modules()[module]) for name in _imported(node)}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _at_load(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not is_for_types and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from _at_load(node)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"a relative import of {node.module}"
        assert node.module is not None
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if name in modules() else node.module
