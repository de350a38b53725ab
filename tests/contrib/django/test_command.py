"""``manage.py runledger``: the command line of Runledger on the project's database, and workers that run its jobs."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from contrib.django.projects import PATIENCE_SECONDS, Project, database, make_project

JOBS_WITH_EVERY_TRAP = """
from django.db import connection, transaction
from runledger.contrib.django import job, ledger_connection
from shop.models import Order

Order.objects.count()  # a connection is open when the app has been imported

@job("shop.pay")
def pay(context, payload):
    with transaction.atomic():
        Order.objects.create(item=str(payload["order"]), status="paid")
        context.finish(connection, {"paid": payload["order"]})

@job("shop.break", max_attempts=1)
def break_connection(context, payload):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
"""


@pytest.fixture
def started() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts a worker; it has ended afterwards."""
    processes = []

    def start(project: Project, *arguments: str) -> "subprocess.Popen[bytes]":
        processes.append(project.start("runledger", "worker", *arguments))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


@pytest.mark.process
@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_a_worker_runs_the_jobs_of_every_app(
    shop: Project, shop_url: str, started: Callable[..., "subprocess.Popen[bytes]"], options: tuple[str, ...]
) -> None:
    shop.write("shop/jobs.py", JOBS_WITH_EVERY_TRAP)
    shop.python(
        """
        from runledger.contrib.django import catalog, enqueue, ledger_connection
        catalog.sync_definitions(ledger_connection())
        for order in range(3):
            enqueue("shop.pay", {"order": order})
            enqueue("shop.break")
        """
    )
    worker = started(shop, "-p", "2", "--drain", "--poll-interval", "50ms", *options)

    assert worker.wait(PATIENCE_SECONDS) == 0
    said = shop.python(
        """
        from runledger.contrib.django.models import Job
        from shop.models import Order
        print(sorted(set(Job.objects.values_list("job_type", "status"))))
        print(sorted(Order.objects.values_list("item", flat=True)))
        """
    )
    assert said.splitlines() == [
        "[('shop.break', 'DEAD_LETTERED'), ('shop.pay', 'SUCCEEDED')]",
        "['0', '1', '2']",
    ]


@pytest.mark.process
def test_a_worker_serves_the_schema_of_the_settings(
    empty_url: str, tmp_path: Path, started: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    project = make_project(tmp_path, {"default": database(empty_url)}, runledger={"SCHEMA": "other_place"})
    project.write("shop/jobs.py", JOBS_WITH_EVERY_TRAP.replace("Order.objects.count()", ""))  # before the first migrate
    project.run("migrate")
    project.python("from runledger.contrib.django import enqueue\nenqueue('shop.pay', {'order': 7})")
    worker = started(project, "-p", "1", "--drain", "--poll-interval", "50ms")

    assert worker.wait(PATIENCE_SECONDS) == 0
    with psycopg.connect(empty_url) as connection:
        assert connection.execute("SELECT status, output FROM other_place.jobs").fetchall() == [
            ("SUCCEEDED", {"paid": 7})
        ]


def test_the_password_stands_on_no_command_line(shop: Project, shop_url: str) -> None:
    settings = (shop.folder / "settings.py").read_text().replace("'PASSWORD': ''", "'PASSWORD': 'sesame'")
    shop.write("settings.py", settings)
    shop.write(
        "shop/jobs.py",
        """
        import subprocess, os
        print(subprocess.run(["ps", "-o", "args=", "-p", str(os.getpid())], capture_output=True, text=True).stdout)
        print("RUNLEDGER_DATABASE_URL" in os.environ)
        """,
    )
    said = shop.run("runledger", "worker", "--check", code=0).stdout

    assert "worker --check" in said
    assert "False" in said
    assert "sesame" not in said


def test_our_variables_win_over_the_settings_and_database_url_does_not(shop: Project) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"
    shop.run("runledger", "stats", DATABASE_URL=nowhere)
    shop.run("runledger", "stats", RUNLEDGER_DATABASE_URL=nowhere, code=69)
    shop.run("runledger", "stats", "-d", nowhere, code=69)


def test_a_preflight_judges_what_waits_by_the_jobs_of_every_app(shop: Project, shop_url: str) -> None:
    shop.write("shop/jobs.py", JOBS_WITH_EVERY_TRAP)
    shop.python(
        """
        from runledger.contrib.django import catalog, enqueue, ledger_connection
        catalog.sync_definitions(ledger_connection())
        enqueue("shop.pay", {"order": 1})
        """
    )
    assert shop.run("runledger", "preflight", code=0).stdout == ""
    shop.write("shop/jobs.py", JOBS_WITH_EVERY_TRAP.replace('"shop.pay"', '"shop.charge"'))

    said = shop.run("runledger", "preflight", code=3).stdout

    assert said.startswith("JOBS\tshop.pay\t1\tcatalog.unknown_job_type\t")


def test_options_of_django_stand_anywhere(shop: Project) -> None:
    os.rename(shop.folder / "settings.py", shop.folder / "production.py")

    help_ = shop.run("runledger", "job", "list", "--settings", "production", "--help").stdout
    assert help_.startswith("Usage: manage.py runledger job list")
    assert "newest first" in help_
    assert shop.run("runledger", "migrate", "--check", "--settings=production").returncode == 0


def test_call_command_raises_with_the_exit_code(shop: Project) -> None:
    said = shop.python(
        """
        from django.core.management import CommandError, call_command
        call_command("runledger", "migrate", "--check")
        try:
            call_command("runledger", "job", "show", "0199aaaa-0000-7000-8000-000000000000")
        except CommandError as error:
            print(error.returncode)
        """
    )
    assert said == "4"


def test_an_engine_that_is_not_postgresql_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})

    refused = project.run("runledger", "worker", code=78)

    assert refused.stdout == ""
    assert refused.stderr.splitlines() == [
        "Error: the Django database 'default' is not PostgreSQL "
        "(hint: set RUNLEDGER['DATABASE'] to an alias of django.db.backends.postgresql)"
    ]


def test_call_command_says_so_too(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
    said = project.python(
        """
        from django.core.management import CommandError, call_command
        try:
            call_command("runledger", "stats")
        except CommandError as error:
            print(error.returncode, error)
        """
    )
    assert said == "78 the Django database 'default' is not PostgreSQL"


@pytest.mark.process
def test_a_hangup_under_manage_py_says_that_it_brings_no_new_code(
    shop: Project, started: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    worker = started(shop, "-p", "1", "--poll-interval", "50ms")
    log = shop.folder / "process.log"
    wait_for_text(log, "worker.ready")

    worker.send_signal(signal.SIGHUP)

    wait_for_text(log, "for new code start the host anew")


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while text not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(("block", "is_to_stop"), [("contextlib.nullcontext()", True), ("transaction.atomic()", False)])
def test_an_interrupted_query_leaves_a_connection_that_works(shop: Project, block: str, is_to_stop: bool) -> None:
    """And no query that could still commit; in an atomic block Django itself hangs up, and nothing commits."""
    said = shop.python(
        f"""
        import contextlib, signal, time
        from django.db import connection, transaction
        from runledger.contrib.django.hygiene import ConnectionHygiene

        class Interrupt(BaseException):
            pass

        def interrupt(*_):
            raise Interrupt

        def handler():
            with {block}, connection.cursor() as cursor:
                signal.setitimer(signal.ITIMER_REAL, 2)
                cursor.execute("SELECT pg_sleep(60)")

        def running():
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
                    " AND datname = current_database()"
                )
                return cursor.fetchone()[0]

        signal.signal(signal.SIGALRM, interrupt)
        try:
            ConnectionHygiene().around_attempt(None, None, handler)
        except Interrupt:
            print("interrupted")
        deadline = time.monotonic() + 10
        while running() and {is_to_stop} and time.monotonic() < deadline:
            time.sleep(0.05)
        print("running" if running() else "stopped")
        """
    ).split()
    assert said == ["interrupted", "stopped" if is_to_stop else "running"]
