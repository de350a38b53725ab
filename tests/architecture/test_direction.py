"""The direction: core <- postgres <- database <- runtime <- cli; embedded and testing are leaves beside them."""

import sys

import pytest
from architecture.sources import imports, imports_at_load, modules

MAY_IMPORT = {
    "core": set(),
    "postgres": {"core"},
    "database": {"core", "postgres", "version"},
    "runtime": {"core", "postgres", "database", "catalog", "version"},
    "embedded": {"core"},
    "testing": {"core", "postgres", "database", "runtime", "embedded", "catalog"},
    "contrib": {"core", "postgres", "database", "runtime", "catalog", "cli"},
}
"""What the modules of each package may import of ours. The edges (cli, demo) and the front door import anything."""

CORE_MAY_ALSO_IMPORT = {"croniter"}


def test_packages_import_only_what_stands_below_them() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if _package(module) in MAY_IMPORT
        for name in sorted(imports(module))
        if name.startswith("runledger.") and _package(name) not in MAY_IMPORT[_package(module)] | {_package(module)}
    ]

    assert wrong == []


def test_nobody_imports_the_front_door_from_behind() -> None:
    wrong = [module for module in modules() if _package(module) in MAY_IMPORT and "runledger" in imports(module)]

    assert wrong == []


def test_core_imports_the_standard_library_and_croniter_only() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if _package(module) == "core"
        for name in sorted(imports_at_load(module))
        if name.partition(".")[0] not in sys.stdlib_module_names | CORE_MAY_ALSO_IMPORT | {"runledger"}
    ]

    assert wrong == []


def test_no_import_cycle() -> None:
    finished: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            pytest.fail(" -> ".join((*path[path.index(module) :], module)))
        if module not in finished:
            for name in sorted(imports_at_load(module) & modules().keys() - {module}):
                walk(name, (*path, module))
            finished.add(module)

    for module in modules():
        walk(module, ())


def _package(module: str) -> str:
    return [*module.split("."), ""][1]
