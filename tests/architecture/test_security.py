"""What no module of ours may do, found in the parsed source: build SQL, read code from data, ask a shell."""

import ast
from collections.abc import Iterator

import pytest
from architecture.sources import modules

FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "xmlrpc", "telnetlib", "imp"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "tempfile.mktemp",
}
SQL_CALLS = {"execute", "executemany", "text", "exec_driver_sql", "SQL", "copy"}
SQL_WORDS = (
    "SELECT ",
    "INSERT ",
    "UPDATE ",
    "DELETE ",
    "ALTER ",
    "DROP ",
    "CREATE ",
    "TRUNCATE ",
    "LOCK ",
    "COPY ",
    "SET ",
)
KNOWN = {
    "runledger.postgres.connection": ("COPY {self.schema}.{target} FROM STDIN",),
    "runledger.database.database": ("SET {setting}",),
    "runledger.postgres.checks.check": ("SELECT finding, count(*) OVER () FROM ({query})",),
    "runledger.database.migrate": (
        "INSERT INTO runledger_migration_history",
        "CREATE SCHEMA IF NOT EXISTS {schema}",
        "SET LOCAL search_path = {schema}",
    ),
}
"""Texts with a place for something: a schema that ``check_schema_name`` has passed, a table or a setting that is a
constant of ours, a query of a check, which is one, and the script that ``migrate --sql`` prints."""

Call = tuple[str, ast.Call]


def calls() -> Iterator[Call]:
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield name, node


def where(module: str, node: ast.AST) -> str:
    return f"{module}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)[:100]}"


def is_built(node: ast.expr) -> bool:
    """Whether the text is put together at run time: an f-string with values in it, ``%``, ``+``, ``format`` or ``join``
    of anything that is no constant; a name in capitals is one."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) and not _is_constant(part.value) for part in node.values)
    if isinstance(node, ast.BinOp):
        return not (isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        is_text = isinstance(node.func.value, ast.Constant) and isinstance(node.func.value.value, str)
        return node.func.attr in ("format", "join") and is_text
    return False


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id.isupper())


def test_no_module_reads_code_from_data() -> None:
    found = [
        where(name, node)
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and FORBIDDEN_MODULES & {one.partition(".")[0] for one in _names(node)}
    ]

    assert found == []


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]


def test_nothing_is_evaluated_and_no_shell_is_asked() -> None:
    found = [
        where(name, node)
        for name, node in calls()
        if ast.unparse(node.func) in FORBIDDEN_CALLS
        or any(word.arg == "shell" and not _is_false(word.value) for word in node.keywords)
    ]

    assert found == []


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def test_no_statement_is_built_where_it_is_run() -> None:
    found = [
        where(name, node)
        for name, node in calls()
        if isinstance(node.func, ast.Attribute | ast.Name)
        and ast.unparse(node.func).rpartition(".")[2] in SQL_CALLS
        and node.args
        and is_built(node.args[0])
        and not _is_known(name, node.args[0])
    ]

    assert found == []


def _is_known(module: str, node: ast.expr) -> bool:
    text = ast.unparse(node).removeprefix("f").strip("'\"")
    return text.startswith(KNOWN.get(module, ("\0",)))


def test_no_text_that_looks_like_sql_has_a_place_for_a_value() -> None:
    found = [
        where(name, node)
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        and is_built(node)
        and isinstance(node.values[0], ast.Constant)
        and str(node.values[0].value).lstrip().startswith(SQL_WORDS)
        and not _is_known(name, node)
    ]

    assert found == []


@pytest.mark.parametrize("source", ["f'SELECT {x}'", "'SELECT ' + x", "'SELECT %s' % x", "'SELECT {}'.format(x)"])
def test_a_built_text_is_recognised(source: str) -> None:
    assert is_built(ast.parse(source, mode="eval").body)
