"""Sizes, docstrings and exports: limits for the odd case; what we aim for is smaller."""

import ast
import importlib
import inspect
from collections.abc import Iterator

import django
import pytest
from architecture.sources import functions, modules, path_of
from django.conf import settings

MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_FILE = 400

if not settings.configured:  # the names of the Django package are loaded on use, and that needs settings
    settings.configure(USE_TZ=True)
    django.setup()

PACKAGES = sorted(module for module in modules() if path_of(module).name == "__init__.py")


def test_no_function_is_too_long() -> None:
    long = {
        f"{module}.{function.name}": lines
        for module, tree in modules().items()
        for function in functions(tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }

    assert long == {}


def test_no_file_is_too_long() -> None:
    lengths = {module: len(path_of(module).read_text().splitlines()) for module in modules()}

    assert {module: lines for module, lines in lengths.items() if lines > MOST_LINES_OF_A_FILE} == {}


def test_every_module_says_why_it_exists() -> None:
    assert [module for module, tree in modules().items() if not ast.get_docstring(tree)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_what_it_names_and_nothing_else(package: str) -> None:
    module = importlib.import_module(package)
    exported = list(getattr(module, "__all__", []))
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and _is_ours(value) and name != "Final"
    }

    assert len(exported) == len(set(exported))
    assert [name for name in exported if not hasattr(module, name)] == []
    assert defined - set(exported) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_exported_says_what_it_is_and_so_do_its_methods(package: str) -> None:
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in getattr(module, "__all__", [])}
    bare = [one for name, value in values.items() if _is_ours(value) for one in _without_words(name, value)]

    assert bare == []


def _without_words(name: str, value: object) -> Iterator[str]:
    """What has no docstring of its own: the name, or public methods of the class that it is."""
    if inspect.isclass(value):
        words = vars(value).get("__doc__") or ""
        if not words or words.startswith(f"{value.__name__}("):  # a dataclass repeats its signature
            yield name
        members = ((member, _function_of(one)) for member, one in vars(value).items() if member[0] != "_")
        yield from (f"{name}.{member}" for member, one in members if one is not None and not inspect.getdoc(one))
    elif inspect.isfunction(value) and not value.__doc__:
        yield name


def _function_of(member: object) -> object:
    """Behind a method, class method or property; None for what is none of them."""
    if isinstance(member, classmethod | staticmethod):
        return member.__func__
    if isinstance(member, property):
        return member.fget
    return member if inspect.isfunction(member) else None


def _is_ours(value: object) -> bool:
    return str(getattr(value, "__module__", "")).startswith("runledger")
