"""Generated pages say what the code says now; ``python docs/generate.py`` renews them."""

import importlib.util
import re
from types import ModuleType

import pytest
from architecture.sources import ROOT, modules, path_of


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()


@pytest.mark.parametrize("name", sorted(GENERATOR.PAGES))
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / "reference" / name).read_text() == GENERATOR.PAGES[name](), "run python docs/generate.py"


def test_every_environment_variable_that_is_read_stands_on_the_page_of_settings() -> None:
    text = "".join(path_of(module).read_text() for module in modules())
    read = set(re.findall(r'"(_?(?:RUNLEDGER|JOBS)(?:_[A-Z]+)+)"', text))
    read |= set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', text))
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()

    assert {name for name in read if f"`{name}`" not in page} == set()
