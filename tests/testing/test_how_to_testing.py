"""The how-to of testing as a stranger follows it: its files are written, and pytest runs them."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "testing.md"


def test_the_examples_of_the_page_pass(pytester: pytest.Pytester) -> None:
    files = re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    pytester.makepyfile(**dict(files))
    pytester.syspathinsert()

    result = pytester.runpytest_subprocess("-p", "runledger_pytest", timeout=120)

    result.assert_outcomes(passed=sum(text.count("def test_") for _, text in files))
    assert [name for name, _ in files] == [
        "receipts",
        "test_handler",
        "test_orders",
        "test_flow",
        "test_crash",
        "test_environment",
    ]
