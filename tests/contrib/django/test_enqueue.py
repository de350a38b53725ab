"""Enqueue on Django's connection: commit and rollback are Django's, and the id is known at once."""

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from contrib.django.projects import Project, database, make_project

from runledger.testing import databases

STATE = "print(Order.objects.count(), Job.objects.count())"
IMPORTS = """
from shop.models import Order
from runledger.contrib.django import enqueue, enqueue_many, ledger_connection, catalog
from runledger.contrib.django.models import Job
"""


def run(project: Project, program: str) -> list[str]:
    return project.python(IMPORTS + program + "\n" + STATE).splitlines()


def test_job_and_row_commit_together_and_the_id_is_known_before(shop: Project) -> None:
    said = run(
        shop,
        """
with transaction.atomic():
    order = Order.objects.create(item="tea")
    job = enqueue("shop.pay", {"order": order.pk})
    print(job.is_new)
print(Job.objects.get(pk=job.job_id).payload == {"order": order.pk})
""",
    )
    assert said == ["True", "True", "1 1"]


def test_a_rollback_leaves_no_job(shop: Project) -> None:
    said = run(
        shop,
        """
try:
    with transaction.atomic():
        Order.objects.create(item="tea")
        enqueue("shop.pay", {"order": 1})
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
""",
    )
    assert said == ["0 0"]


def test_a_savepoint_that_rolls_back_takes_its_job_with_it(shop: Project) -> None:
    said = run(
        shop,
        """
with transaction.atomic():
    Order.objects.create(item="tea")
    enqueue("shop.pay", {"order": 1})
    try:
        with transaction.atomic():
            enqueue("shop.pay", {"order": 2})
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
""",
    )
    assert said == ["1 1"]


def test_outside_atomic_the_job_is_committed(shop: Project, shop_url: str) -> None:
    run(shop, "from shop.jobs import pay\nenqueue(pay, {'order': 1}, delay=60, tags=['a'])")

    with psycopg.connect(shop_url) as connection:
        assert connection.execute("SELECT status::text, stage, tags FROM runledger.jobs").fetchall() == [
            ("PENDING", "scheduled", ["a"])
        ]


@pytest.mark.parametrize("open_block", ["if True:", "with transaction.atomic():"])
def test_a_key_means_one_request_in_and_outside_of_atomic(shop: Project, open_block: str) -> None:
    said = run(
        shop,
        f"""
from runledger.core.errors import IdempotencyConflict
def keyed(order):
    {open_block}
        return enqueue("shop.pay", {{"order": order}}, idempotency_key="k")
first, again = keyed(1), keyed(1)
print(first.is_new, again.is_new, first.job_id == again.job_id)
try:
    keyed(2)
except IdempotencyConflict as error:
    print(error.code)
""",
    )
    assert said == ["True False True", "job.idempotency_conflict", "0 1"]


@pytest.mark.parametrize("open_block", ["if True:", "with transaction.atomic():"])
def test_many_are_stored_all_or_none(shop: Project, open_block: str) -> None:
    said = run(
        shop,
        f"""
from runledger.core.errors import RunledgerError
from runledger.core.requests import JobRequest
{open_block}
    print(len(enqueue_many([catalog.request("shop.pay", {{"order": n}}) for n in range(3)])))
    try:
        enqueue_many([JobRequest("shop.pay"), JobRequest("nobody.knows")])
    except RunledgerError as error:
        print(error.code)
""",
    )
    assert said == ["3", "job.definition_not_found_or_disabled", "0 3"]


def test_a_failed_transaction_says_so(shop: Project) -> None:
    said = run(
        shop,
        """
from django.db import IntegrityError
from runledger.core.errors import TransactionAborted
Order.objects.create(item="tea")
for savepoint in (True, False):
    try:
        with transaction.atomic():
            try:
                with transaction.atomic(savepoint=savepoint):
                    Order.objects.create(item="tea")
            except IntegrityError:
                pass
            enqueue("shop.pay", {"order": 1})
    except TransactionAborted as error:
        print(savepoint, error.code)
""",
    )
    assert said == ["False db.transaction_aborted", "1 1"]


def test_a_payload_is_checked_against_the_handler(shop: Project) -> None:
    shop.write(
        "shop/jobs.py",
        """
        from dataclasses import dataclass
        from runledger.contrib.django import job

        @dataclass
        class Payment:
            order: int

        @job("shop.pay")
        def pay(context, payload: Payment):
            pass
        """,
    )
    said = run(
        shop,
        """
from runledger.core.errors import InvalidPayload
from shop.jobs import Payment
enqueue("shop.pay", Payment(7))
try:
    enqueue("shop.pay", {"order": "seven"})
except InvalidPayload as error:
    print(error.code)
""",
    )
    assert said == ["job.invalid_payload", "0 1"]


def test_an_alias_of_the_same_database_may_be_used_and_another_is_refused(
    server_url: str, shop_url: str, tmp_path: Path
) -> None:
    with databases.ephemeral_database(server_url, prefix="django") as other_url:
        aliases = {"default": database(shop_url), "same": database(shop_url), "other": database(other_url)}
        project = make_project(tmp_path, aliases)
        said = run(
            project,
            """
from runledger.core.errors import InvalidConfiguration
with transaction.atomic(using="same"):
    enqueue("shop.pay", {"order": 1}, using="same")
    print(Job.objects.count())
try:
    enqueue("shop.pay", {"order": 2}, using="other")
except InvalidConfiguration as error:
    print(error.code, error)
""",
        )
    assert said[0] == "0"
    assert "lives" in said[1] or "live in the database of 'default'" in said[1]
    assert said[2] == "0 1"


def test_the_functions_of_runledger_take_the_connection(shop: Project) -> None:
    said = run(
        shop,
        """
from runledger import cancel_job, get_job, Scope
job = enqueue("shop.pay", {"order": 1})
with transaction.atomic():
    cancel_job(ledger_connection(), job.job_id, scope=Scope.any(), reason="changed my mind", actor="ada")
print(get_job(ledger_connection(), job.job_id, scope=Scope.any()).status)
""",
    )
    assert said == ["CANCELED", "0 1"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("[]", "RUNLEDGER must be a dict"),
        ("{'DATBASE': 'x'}", "RUNLEDGER has no setting 'DATBASE'; there are DATABASE, SCHEMA, APP"),
        ("{'DATABASE': 'jobs'}", "RUNLEDGER['DATABASE'] names 'jobs'; DATABASES has default"),
        ("{'SCHEMA': 'Jobs'}", "RUNLEDGER['SCHEMA']: the schema name must be a plain lower-case identifier"),
        ("{'APP': 7}", "RUNLEDGER['APP'] must be a text"),
        ("{'JOB_DEFAULTS': {'retries': 1}}", "RUNLEDGER['JOB_DEFAULTS'] has no setting 'retries'"),
        ("{'JOB_DEFAULTS': {'max_attempts': 0}}", "RUNLEDGER['JOB_DEFAULTS']: "),
        ("{'JOB_DEFAULTS': {'max_attempts': 'a'}}", "RUNLEDGER['JOB_DEFAULTS']['max_attempts'] must be of type int"),
    ],
)
def test_a_wrong_setting_is_named_when_the_project_starts(tmp_path: Path, given: str, complaint: str) -> None:
    place = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "nowhere"}}
    project = make_project(tmp_path, place, more=f"RUNLEDGER = {given}")

    assert complaint in project.run("showmigrations", code=1).stderr


def test_importing_runledger_does_not_import_django() -> None:
    program = "import sys, json\nimport runledger.contrib.django, runledger, runledger.cli.worker\n"
    program += "print(json.dumps(sorted(name for name in sys.modules if name.partition('.')[0] == 'django')))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == []
