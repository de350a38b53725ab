"""The plugin in a project of its own: the fixtures are there, cost nothing until used, and fail without a database."""

import subprocess
import sys

import pytest

PROJECT = """
    import psycopg
    from runledger import JobCatalog, JobRequest, enqueue_job
    from runledger.testing import assert_enqueued

    catalog = JobCatalog()

    @catalog.job("mail.send")
    def send(context, payload):
        return "sent"

    def test_the_jobs_of_an_app(runledger_ledger, runledger_db):
        runledger_ledger.sync(catalog)
        with psycopg.connect(runledger_db) as connection:
            enqueue_job(connection, JobRequest("mail.send", {"to": "ada"}))
        runledger_ledger.assert_enqueued("mail.send", payload_contains={"to": "ada"}, count=1)
        assert runledger_ledger.drain(catalog).check().outputs == ["sent"]

    def test_every_test_has_a_database_of_its_own(runledger_ledger):
        runledger_ledger.assert_enqueued("mail.send", count=0)

    def test_a_transaction(runledger_tx):
        catalog.sync_definitions(runledger_tx)
        enqueue_job(runledger_tx, JobRequest("mail.send"))
        assert_enqueued(runledger_tx, "mail.send", count=1)

    def test_and_it_was_rolled_back(runledger_tx):
        assert_enqueued(runledger_tx, "mail.send", count=0)
"""


def test_a_project_uses_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PROJECT)

    pytester.runpytest_subprocess("-p", "runledger_pytest", timeout=120).assert_outcomes(passed=4)


def test_nothing_of_ours_is_imported_before_a_fixture_is_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing_was_imported():
            assert "runledger_pytest" in sys.modules
            assert not {"runledger", "psycopg", "sqlalchemy"} & set(sys.modules)
        """
    )

    pytester.runpytest_subprocess("-p", "runledger_pytest", timeout=60).assert_outcomes(passed=1)


def test_importing_the_plugin_brings_only_what_pytest_has() -> None:
    code = "import pytest, sys; before = set(sys.modules); import runledger_pytest; print(set(sys.modules) - before)"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout.strip() == "{'runledger_pytest'}"


def test_without_a_database_a_test_fails_and_says_what_helps(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLEDGER_TEST_DB", "url")
    monkeypatch.delenv("RUNLEDGER_TEST_DATABASE_URL", raising=False)
    pytester.makepyfile("def test_it(runledger_db): pass")

    result = pytester.runpytest_subprocess("-p", "runledger_pytest", timeout=60)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*NoTestDatabase*", "*RUNLEDGER_TEST_DATABASE_URL*"])
