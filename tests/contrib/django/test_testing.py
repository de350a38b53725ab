"""The helpers for tests on Django's connection and in Django's test cases, as the page shows them."""

import re
from pathlib import Path

from contrib.django.projects import Project

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "testing.md").read_text()
TESTS = re.findall(r"^```python\n(# shop/tests\.py\n.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_tests_of_the_page_pass(project: Project) -> None:
    [tests] = TESTS
    project.write("shop/tests.py", tests)
    said = project.run("test", "--noinput")
    assert "Ran 2 tests" in said.stderr


def test_a_drain_refuses_a_connection_in_a_transaction(shop: Project) -> None:
    said = shop.python(
        """
        from runledger.contrib.django import catalog
        from runledger.core.errors import InvalidConfiguration
        from runledger.testing import drain
        with transaction.atomic():
            try:
                drain(connection, catalog)
            except InvalidConfiguration as error:
                print("TransactionTestCase" in error.hint)
        print(len(drain(connection, catalog)))
        """
    )
    assert said.split() == ["True", "0"]
