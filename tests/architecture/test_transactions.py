"""Nothing in ``postgres`` begins, commits or rolls back: the transaction is its owner's."""

import ast
import re

from architecture.sources import modules
from architecture.statements import statements

ENDS = {"commit", "rollback", "begin", "begin_nested", "transaction"}
SQL_ENDS = re.compile(r"^\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|START TRANSACTION|RELEASE SAVEPOINT)\b", re.I | re.M)


def test_no_function_of_postgres_ends_a_transaction() -> None:
    found = [
        f"{module}:{node.lineno} .{node.func.attr}()"
        for module, tree in modules().items()
        if module.startswith("runledger.postgres")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ENDS
    ]

    assert found == []


def test_no_text_of_postgres_is_a_command_about_transactions() -> None:
    texts = [
        f"{module}:{node.lineno}"
        for module, tree in modules().items()
        if module.startswith("runledger.postgres")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL_ENDS.search(node.value)
    ]

    assert texts == []
    assert [name for name, one in statements().items() if SQL_ENDS.search(one.text("runledger"))] == []
