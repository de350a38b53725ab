"""The extension in a real application: rows and jobs commit together, jobs run within a context of the app."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from contrib.flask.apps import shop
from flask import Flask, has_app_context
from sqlalchemy import create_engine
from sqlalchemy.orm import scoped_session, sessionmaker

from runledger import InvalidConfiguration, JobCatalog, JobRequest, JobStatus, Outcome
from runledger.contrib.flask import Runledger, current_ledger, enqueue
from runledger.testing import LedgerForTests

APPS = Path(__file__).parent / "apps"
PATIENCE_SECONDS = 60


@pytest.fixture
def ledger(runledger_ledger: LedgerForTests) -> LedgerForTests:
    runledger_ledger.sync(shop.catalog)
    with psycopg.connect(runledger_ledger.url) as connection:
        connection.execute("CREATE TABLE orders (email text, done boolean NOT NULL DEFAULT false)")
    return runledger_ledger


@pytest.fixture
def app(ledger: LedgerForTests) -> Iterator[Flask]:
    made = shop.create_app(ledger.url)
    yield made
    made.extensions["runledger"].ledger.close()
    with made.app_context():
        shop.db.engine.dispose()


def orders(ledger: LedgerForTests) -> list[Any]:
    with psycopg.connect(ledger.url) as connection:
        return connection.execute("SELECT email, done FROM orders").fetchall()


def test_a_row_and_its_job_are_committed_together(ledger: LedgerForTests, app: Flask) -> None:
    answer = app.test_client().post("/orders/ada").get_json()

    [job] = ledger.assert_enqueued("shop.receipt", payload_contains={"to": "ada"}, count=1)
    assert str(job.job_id) == answer["job_id"]
    assert orders(ledger) == [("ada", False)]


def test_a_request_that_fails_enqueues_nothing(ledger: LedgerForTests, app: Flask) -> None:
    assert app.test_client().post("/orders/ada/refused").status_code == 500

    ledger.assert_enqueued("shop.receipt", count=0)


def test_a_job_runs_within_a_context_of_the_app(ledger: LedgerForTests, app: Flask) -> None:
    client = app.test_client()
    job_id = client.post("/orders/ada").get_json()["job_id"]

    ledger.drain(shop.catalog).check()

    output = {"app": "shop", "greeting": "hello", "sent_to": "ada"}
    assert client.get(f"/jobs/{job_id}").get_json() == {"status": "SUCCEEDED", "output": output}
    assert orders(ledger) == [("ada", True)]
    assert not has_app_context()


def test_a_failed_job_leaves_its_session_rolled_back_and_torn_down(ledger: LedgerForTests, app: Flask) -> None:
    app.test_client().post("/orders/ada")
    ledger.enqueue("shop.receipt", {"to": "ada", "fails": True}, priority=1)
    shop.torn_down.clear()

    assert ledger.drain(shop.catalog, max_jobs=1).outcomes == [Outcome.RETRYABLE]

    assert shop.torn_down == ["ValueError"]
    assert orders(ledger) == [("ada", False)]


def test_a_handler_finishes_its_job_in_its_own_session(ledger: LedgerForTests, app: Flask) -> None:
    app.test_client().post("/orders/ada")
    job = ledger.enqueue("shop.finish", priority=1)

    ledger.drain(shop.catalog, max_jobs=1).check()

    found = ledger.get_job(job.job_id)
    assert (found.status, found.output) == (JobStatus.SUCCEEDED, {"finished": True})
    assert orders(ledger) == [("ada", True)]


def test_the_app_that_was_bound_last_runs_the_jobs(ledger: LedgerForTests, app: Flask) -> None:
    shop.create_app(ledger.url, name="other")
    ledger.enqueue("shop.receipt", {"to": "ada"})

    [output] = ledger.drain(shop.catalog).check().outputs

    assert output["app"] == "other"


def test_options_come_with_a_request_of_the_catalog(ledger: LedgerForTests, app: Flask) -> None:
    with app.app_context():
        job = enqueue(shop.catalog.request(shop.send_receipt, {"to": "ada"}, priority=7))
        shop.db.session.commit()

    assert ledger.get_job(job.job_id).priority == 7


def test_a_session_of_plain_sqlalchemy_will_do(ledger: LedgerForTests) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(ledger.url))
    session = scoped_session(sessionmaker(engine))
    app = Flask("plain")
    catalog = JobCatalog()
    catalog.register(Handler())
    ledger.sync(catalog)
    Runledger(app, catalog=catalog, session=session)
    with app.app_context():
        enqueue("plain.job", {"n": 1})
        session.rollback()
        enqueue("plain.job", {"n": 2})
        session.commit()
    session.remove()
    engine.dispose()

    ledger.assert_enqueued("plain.job", payload_contains={"n": 2}, count=1)
    ledger.assert_enqueued("plain.job", count=1)


class Handler:
    job_type = "plain.job"

    def execute(self, context: object, payload: Any) -> None:
        return None


def test_without_a_session_nothing_is_committed_apart_in_silence() -> None:
    app = Flask("bare")
    Runledger(app, catalog=shop.catalog)

    with app.app_context(), pytest.raises(InvalidConfiguration, match="no session"):
        enqueue(JobRequest("shop.receipt"))


def test_an_app_without_the_extension_says_so() -> None:
    with Flask("bare").app_context(), pytest.raises(InvalidConfiguration, match="no Runledger"):
        enqueue(JobRequest("shop.receipt"))


def test_an_app_is_bound_once() -> None:
    app = Flask("twice")
    extension = Runledger(app, catalog=JobCatalog())

    with pytest.raises(InvalidConfiguration, match="already"):
        extension.init_app(app)


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ({"RUNLEDGER_DATABASE_URL": "postgresql://a/b", "SQLALCHEMY_DATABASE_URI": "postgresql://c/d"}, "a/b"),
        (
            {"SQLALCHEMY_DATABASE_URI": "postgresql+psycopg2://u:p%40@c:5/d?sslmode=require"},
            "u:p%40@c:5/d?sslmode=require",
        ),
        ({"SQLALCHEMY_DATABASE_URI": "sqlite:///x.db"}, "e/f"),
        ({}, "e/f"),
    ],
)
def test_the_url_comes_from_the_config_and_else_the_environment(
    config: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLEDGER_DATABASE_URL", "postgresql://e/f")
    app = Flask("configured")
    app.config.update(config)
    Runledger(app, catalog=JobCatalog())

    assert app.extensions["runledger"].database_url == f"postgresql://{url}"


def test_without_a_url_the_first_use_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNLEDGER_DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    app = Flask("unconfigured")
    Runledger(app, catalog=JobCatalog())

    with app.app_context(), pytest.raises(InvalidConfiguration, match="no database"):
        current_ledger.enqueue("x")


def test_children_of_a_preloaded_app_have_connections_of_their_own(ledger: LedgerForTests, app: Flask) -> None:
    with app.app_context():
        current_ledger.enqueue("shop.receipt", {"to": "parent"})
        shop.db.session.remove()
        shop.db.engine.dispose()
        children = [_fork_and_enqueue(number) for number in range(3)]
        current_ledger.enqueue("shop.receipt", {"to": "parent again"})
    statuses = [os.waitpid(pid, 0)[1] for pid in children]

    assert statuses == [0, 0, 0]
    ledger.assert_enqueued("shop.receipt", count=5)


def _fork_and_enqueue(number: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        current_ledger.enqueue("shop.receipt", {"to": f"child {number}"})
        os._exit(0)
    finally:
        os._exit(1)


def flask_command(ledger: LedgerForTests, *arguments: str, app: str = "shop:create_app()") -> Any:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNLEDGER_")}
    environment |= {"SHOP_DATABASE_URL": ledger.url, "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", app, "runledger", *arguments],
        cwd=APPS,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def test_the_command_group_runs_workers_of_the_app(ledger: LedgerForTests) -> None:
    job = ledger.enqueue("shop.receipt", {"to": "ada"})

    ended = flask_command(ledger, "worker", "--drain", "-p", "1")

    assert ended.returncode == 0, ended.stderr
    found = ledger.get_job(job.job_id)
    assert (found.status, found.output["app"]) == (JobStatus.SUCCEEDED, "shop")


def test_the_command_group_passes_everything_through(ledger: LedgerForTests) -> None:
    job = ledger.enqueue("shop.receipt", {"to": "ada"})

    assert str(job.job_id) in flask_command(ledger, "job", "list", "--json").stdout
    assert flask_command(ledger, "job", "show", "00000000-0000-4000-8000-000000000000").returncode == 4
    assert "Usage: runledger worker" in flask_command(ledger, "worker", "--help").stdout
    assert "Durable jobs" in flask_command(ledger, "--help").stdout
