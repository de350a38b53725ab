"""Every ``Statement`` of the package, found by walking its modules, with parameters numbered for EXPLAIN."""

import importlib
import pkgutil
import re
from functools import cache

import runledger.postgres
from runledger.postgres.statements import Statement

PARAMETER = re.compile(r"%\((\w+)\)s")


@cache
def statements() -> dict[str, Statement]:
    """Constant name with module → statement."""
    found: dict[str, Statement] = {}
    for info in pkgutil.walk_packages(runledger.postgres.__path__, "runledger.postgres."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if isinstance(value, Statement) and value not in found.values():
                found[f"{info.name.removeprefix('runledger.postgres.')}.{name}"] = value
    return found


def numbered(text: str) -> tuple[str, int]:
    """The text with ``$1`` for its parameters, as the server sees it, and how many there are."""
    names = list(dict.fromkeys(PARAMETER.findall(text)))
    return PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", text).replace("%%", "%"), len(names)
