"""The site is built without a warning, and every link of a page leads somewhere."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import runledger

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MADE_BY_THE_BUILD = {"reference/api.md", "reference/cli.md", "reference/tables.md"}
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), ROOT / "llms.txt", *DOCS.rglob("*.md")]
    if path not in {DOCS / name for name in MADE_BY_THE_BUILD}
)
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)?(?:#(?P<anchor>[\w-]+))?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    built = subprocess.run(
        [*command, "docs", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "reference" / "cli.html").exists()


def test_every_public_name_stands_on_the_page_of_names_or_of_errors() -> None:
    pages = runpy.run_path(str(DOCS / "conf.py"))
    listed = set(re.findall(r"auto\w+:: runledger\.(\w+)$", pages["api_page"](), re.MULTILINE))
    errors = (DOCS / "reference" / "errors.md").read_text()
    in_errors = set(re.findall(r"^\| `[\w.]+`<br>`(\w+)`, ", errors, re.MULTILINE))

    assert set(runledger.__all__) - listed - in_errors == {"__version__"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for match in LINK.finditer(FENCE.sub("", page.read_text())):
        target, anchor = match["target"], match["anchor"]
        if target and "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        is_made = file in {DOCS / name for name in MADE_BY_THE_BUILD}
        assert is_made or file.exists(), f"{page.name} links to {target}"
        if anchor and file.suffix == ".md" and not is_made:
            assert anchor in _anchors(file), f"{page.name} links to {target or ''}#{anchor}"


def test_every_test_that_the_features_name_exists() -> None:
    named = re.findall(r"`(tests/[\w./]+)`", (DOCS / "reference" / "features.md").read_text())

    assert len(named) > 60
    assert {name for name in named if not (ROOT / name).exists()} == set()


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
