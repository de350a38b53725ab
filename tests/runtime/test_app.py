"""Finding the catalog of an application, and saying why not."""

import sys
from pathlib import Path

import pytest
from runtime.hosts import APPS

from runledger import AppNotImportable, JobCatalog
from runledger.runtime.app import load_catalog


@pytest.fixture(autouse=True)
def apps_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APPS))
    for name in ("other_shapes", "raises_on_import", "exits_on_import"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("app", ["other_shapes:catalog", "other_shapes:make_catalog"])
def test_a_catalog_or_a_function_that_makes_one_is_found(app: str) -> None:
    assert isinstance(load_catalog(app), JobCatalog)


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("", "MODULE:ATTRIBUTE"),
        ("other_shapes", "MODULE:ATTRIBUTE"),
        ("other_shapes:", "MODULE:ATTRIBUTE"),
        (":catalog", "MODULE:ATTRIBUTE"),
        ("..other_shapes:catalog", "MODULE:ATTRIBUTE"),
        ("other_shapes.py:catalog", "ModuleNotFoundError"),
        ("os;system('id'):catalog", "MODULE:ATTRIBUTE"),
        ("other_shapes:make_catalog()", "MODULE:ATTRIBUTE"),
        ("other shapes:catalog", "MODULE:ATTRIBUTE"),
        ("no_such_module:catalog", "ModuleNotFoundError"),
        ("other_shapes:missing", "AttributeError"),
        ("other_shapes:not_a_catalog", "dict, not a JobCatalog"),
        ("other_shapes:make_nothing", "NoneType, not a JobCatalog"),
        ("other_shapes:fail_to_make", "RuntimeError: the factory failed"),
        ("other_shapes:JobCatalog.job", "MODULE:ATTRIBUTE"),
        ("exits_on_import:catalog", "SystemExit: 3"),
    ],
)
def test_an_app_that_has_no_catalog_is_refused_with_the_true_reason(app: str, said: str) -> None:
    with pytest.raises(AppNotImportable) as refusal:
        load_catalog(app)

    assert said in str(refusal.value)


def test_an_import_that_fails_names_the_line_that_failed() -> None:
    with pytest.raises(AppNotImportable, match=r"NameError: .*undefined_name.*raises_on_import\.py, line 3"):
        load_catalog("raises_on_import:catalog")


def test_a_syntax_error_names_its_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_syntax.py").write_text("one = 1\ntwo = (\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(AppNotImportable, match=r"SyntaxError: .*broken_syntax\.py, line 2"):
        load_catalog("broken_syntax:catalog")


def test_a_file_in_the_current_directory_does_not_hide_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('hijacked')\n")
    (tmp_path / "local_app.py").write_text(
        "import colorsys\nfrom runledger import JobCatalog\ncatalog = JobCatalog()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])

    assert isinstance(load_catalog("local_app:catalog"), JobCatalog)
