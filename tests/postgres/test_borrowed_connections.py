"""Connections of the real packages: what is borrowed is given back as it was, and its owner commits or rolls back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from postgres.observing import count, snapshot
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row, dict_row, namedtuple_row
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from runledger.core import errors
from runledger.core.jobs import Scope
from runledger.core.requests import JobRequest
from runledger.core.states import JobStatus
from runledger.postgres.claim import claim_jobs
from runledger.postgres.connection import borrow
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs
from runledger.postgres.leases import renew_leases, save_progress
from runledger.postgres.operations import cancel_job, requeue_job, reschedule_job
from runledger.postgres.promote import promote_due_jobs
from runledger.postgres.reads import get_job, list_dead_letters, list_job_attempts, list_job_events, list_jobs
from runledger.postgres.recovery import reap_lapsed_leases
from runledger.postgres.settle import settle_jobs
from runledger.postgres.statements import Statement
from runledger.postgres.stats import get_queue_stats
from runledger.testing.factories import a_definition, dead_lettered, failed, succeeded

ANY = Scope.any()
PAYLOAD = {"é\u2028": ['"', "\\", "%s %(x)s :y", 1.5, None, True], "n": 10**20, "deep": {"a": {"b": []}}}
FIRST_CLAIM = {"worker_id": "w", "job_types": ["test.job"], "limit": 10, "lease_ttl_seconds": 60}


@dataclass
class Owner:
    """One kind of connection and what its owner says to end its transaction."""

    connection: Any
    commit: Callable[[], Any]
    rollback: Callable[[], Any]
    run: Callable[[str], Any]


@contextmanager
def psycopg_owner(url: str, **options: Any) -> Iterator[Owner]:
    with psycopg.connect(url, **options) as connection:
        yield Owner(connection, connection.commit, connection.rollback, connection.execute)


@contextmanager
def wandering_psycopg_owner(url: str) -> Iterator[Owner]:
    with psycopg.connect(url) as connection:
        connection.execute("SET search_path = pg_catalog")
        connection.execute("SET TIME ZONE 'Asia/Kathmandu'")
        connection.execute("SET DateStyle = 'SQL, DMY'")
        connection.execute("SET IntervalStyle = 'sql_standard'")
        connection.commit()
        yield Owner(connection, connection.commit, connection.rollback, connection.execute)


@contextmanager
def psycopg2_owner(url: str, **options: Any) -> Iterator[Owner]:
    import psycopg2

    connection = psycopg2.connect(url, **options)

    def run(query: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(query)

    yield Owner(connection, connection.commit, connection.rollback, run)
    connection.close()


def psycopg2_cursors(name: str) -> Any:
    import psycopg2.extras

    return getattr(psycopg2.extras, name)


def psycopg2_with_decoded_json(url: str) -> Any:
    """Its owner has asked for jsonb as something else: neither side may meet it."""
    import json

    import psycopg2.extras

    owner = psycopg2_owner(url)

    @contextmanager
    def registered() -> Iterator[Owner]:
        with owner as made:
            loads = lambda text: ["decoded", json.loads(text)]  # noqa: E731
            psycopg2.extras.register_default_jsonb(made.connection, loads=loads)
            psycopg2.extras.register_uuid(conn_or_curs=made.connection)
            yield made

    return registered()


@contextmanager
def core_owner(url: str, driver: str = "psycopg") -> Iterator[Owner]:
    engine = engine_of(url, driver)
    with engine.connect() as connection:
        yield Owner(connection, connection.commit, connection.rollback, connection.exec_driver_sql)
    engine.dispose()


@contextmanager
def session_owner(url: str, is_scoped: bool = False) -> Iterator[Owner]:
    engine = engine_of(url, "psycopg")
    session: Any = scoped_session(sessionmaker(engine)) if is_scoped else Session(engine)
    yield Owner(session, session.commit, session.rollback, lambda query: session.execute(text(query)))
    session.close()
    engine.dispose()


@contextmanager
def django_owner(url: str, use_tz: bool = True) -> Iterator[Owner]:
    connection = django_connection(url, use_tz=use_tz)
    connection.set_autocommit(False)

    def run(query: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(query)

    yield Owner(connection, connection.commit, connection.rollback, run)
    connection.rollback()
    connection.close()


def engine_of(url: str, driver: str) -> Any:
    if driver == "psycopg":
        return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    import psycopg2

    return create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(url))


def django_connection(url: str, use_tz: bool = True) -> Any:
    import django
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure(USE_TZ=True)
        django.setup()
    parts = conninfo_to_dict(url)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": parts.get("port", ""),
        "TIME_ZONE": None,
    }
    settings.USE_TZ = use_tz
    return ConnectionHandler({"default": database})["default"]


OWNERS: dict[str, Callable[[str], Any]] = {
    "psycopg": psycopg_owner,
    "psycopg dict_row": lambda url: psycopg_owner(url, row_factory=dict_row),
    "psycopg namedtuple_row": lambda url: psycopg_owner(url, row_factory=namedtuple_row),
    "psycopg class_row": lambda url: psycopg_owner(url, row_factory=class_row(dict)),
    "psycopg client cursor": lambda url: psycopg_owner(url, cursor_factory=psycopg.ClientCursor),
    "psycopg2": psycopg2_owner,
    "psycopg2 RealDictCursor": lambda url: psycopg2_owner(url, cursor_factory=psycopg2_cursors("RealDictCursor")),
    "psycopg2 DictConnection": lambda url: psycopg2_owner(url, connection_factory=psycopg2_cursors("DictConnection")),
    "psycopg2 other jsonb": psycopg2_with_decoded_json,
    "psycopg other search_path": wandering_psycopg_owner,
    "SQLAlchemy Core": core_owner,
    "SQLAlchemy Core on psycopg2": lambda url: core_owner(url, "psycopg2"),
    "SQLAlchemy Session": session_owner,
    "SQLAlchemy scoped_session": lambda url: session_owner(url, is_scoped=True),
    "Django": django_owner,
    "Django without time zones": lambda url: django_owner(url, use_tz=False),
}


@pytest.fixture(params=OWNERS)
def owner(request, connection, database_url) -> Iterator[Owner]:
    a_definition(connection)
    with OWNERS[request.param](database_url) as made:
        yield made


def test_the_owner_commits(connection, owner):
    job = enqueue_job(owner.connection, JobRequest("test.job", PAYLOAD))
    assert count(connection, "job_queue") == 0

    owner.commit()

    assert get_job(connection, job.job_id, scope=ANY).payload == PAYLOAD


def test_the_owner_rolls_back(connection, owner):
    before = snapshot(connection)
    enqueue_job(owner.connection, JobRequest("test.job", PAYLOAD, idempotency_key="k"))
    enqueue_jobs(owner.connection, [JobRequest("test.job")] * 3)

    owner.rollback()

    assert snapshot(connection) == before


def test_our_rows_commit_together_with_the_owners(connection, owner):
    owner.run("CREATE TABLE public.orders (id integer)")
    owner.run("INSERT INTO public.orders VALUES (7)")
    enqueue_job(owner.connection, JobRequest("test.job"))
    owner.rollback()

    assert connection.execute("SELECT to_regclass('public.orders')").fetchone() == (None,)
    assert count(connection, "job_queue") == 0


@pytest.mark.parametrize("size", [3, 1000])
def test_a_batch_is_stored_in_order(connection, owner, size):
    later = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)
    requests = [
        JobRequest("test.job", PAYLOAD, tags=["b", "a,"], expires_at=later),
        JobRequest("test.job", {"n": 1}, next_run_at=later),
        *[JobRequest("test.job", {"n": 2}, delay=timedelta(hours=1))] * (size - 2),
    ]

    answers = enqueue_jobs(owner.connection, requests)
    owner.commit()

    first, second, third = (get_job(connection, answer.job_id, scope=ANY) for answer in answers[:3])
    assert (first.payload, first.tags, first.expires_at) == (PAYLOAD, ("a,", "b"), later)
    assert (second.payload, second.next_run_at) == ({"n": 1}, later)
    assert third.next_run_at - third.created_at == timedelta(hours=1)


@pytest.mark.parametrize("size", [3, 1500])
def test_a_refused_batch_leaves_the_owners_transaction_as_it_was(connection, owner, size):
    first = enqueue_job(owner.connection, JobRequest("test.job", {"n": 1}))

    with pytest.raises(errors.InvalidPayload, match=rf"requests\[{size}\]"):
        enqueue_jobs(owner.connection, [*[JobRequest("test.job")] * size, JobRequest("test.job", {"no": object()})])
    second = enqueue_job(owner.connection, JobRequest("test.job", {"n": 2}))
    owner.commit()

    assert [job.job_id for job in list_jobs(connection, scope=ANY)] == [second.job_id, first.job_id]
    assert count(connection, "job_ready") == 2


def test_a_whole_life_runs_over_it(connection, owner):
    ours = owner.connection
    job = enqueue_job(ours, JobRequest("test.job", PAYLOAD, idempotency_key="k", tags=["x"]))
    assert not enqueue_job(ours, JobRequest("test.job", PAYLOAD, idempotency_key="k", tags=["x"])).is_new
    with pytest.raises(errors.IdempotencyConflict):
        enqueue_job(ours, JobRequest("test.job", idempotency_key="k"))
    [leased] = claim_jobs(ours, **FIRST_CLAIM)
    assert (type(leased.payload), type(leased.job_id), type(leased.lease_token)) == (str, str, int)
    save_progress(ours, leased.job_id, leased.lease_token, done=1, total=2, checkpoint='{"at": [1]}')
    assert renew_leases(ours, worker_ids=["w"], lease_ttl_seconds=90) == {leased.job_id: leased.lease_token}
    assert settle_jobs(ours, [failed(leased, retry_seconds=0)]) == {leased.job_id}
    [again] = claim_jobs(ours, **FIRST_CLAIM)
    assert again.checkpoint == '{"at": [1]}'
    assert settle_jobs(ours, [dead_lettered(again)]) == {leased.job_id}
    assert requeue_job(ours, job.job_id, scope=ANY) == 2
    reschedule_job(ours, job.job_id, next_run_at=datetime(2001, 1, 1, tzinfo=UTC), scope=ANY)
    assert promote_due_jobs(ours).has_ready
    [last] = claim_jobs(ours, **FIRST_CLAIM)
    assert settle_jobs(ours, [succeeded(last, {"done": True})]) == {last.job_id}
    cancel_job(ours, enqueue_job(ours, JobRequest("test.job")).job_id, scope=ANY)
    assert len(reap_lapsed_leases(ours)) == 0
    owner.commit()

    for reader in (ours, connection):
        stored = get_job(reader, job.job_id, scope=ANY)
        assert (stored.status, stored.output, stored.payload) == (JobStatus.SUCCEEDED, {"done": True}, PAYLOAD)
        assert stored.tags == ("x",)
        assert stored.created_at.utcoffset() == timedelta(0)
        assert [one.attempt for one in list_job_attempts(reader, job.job_id, scope=ANY)] == [1, 2, 1]
        assert [one.checkpoint for one in list_dead_letters(reader, scope=ANY)] == [{"at": [1]}]
    assert list_jobs(ours, scope=ANY) == list_jobs(connection, scope=ANY)
    for event, other in zip(*(list_job_events(one, job.job_id, scope=ANY) for one in (ours, connection)), strict=True):
        assert replace(event, detail=None) == replace(other, detail=None)
    assert get_queue_stats(ours)[0].ready == 0
    owner.rollback()


def test_a_transaction_that_has_failed_is_named(connection, owner):
    with pytest.raises(Exception, match="zero"):
        owner.run("SELECT 1 / 0")

    with pytest.raises(errors.TransactionAborted) as aborted:
        enqueue_job(owner.connection, JobRequest("test.job"))

    assert aborted.value.code == "db.transaction_aborted"
    owner.rollback()
    enqueue_job(owner.connection, JobRequest("test.job"))
    owner.commit()
    assert count(connection, "job_queue") == 1


def test_what_the_database_refuses_is_our_error(connection, connect, owner):
    holder = connect(autocommit=False)
    holder.execute("LOCK TABLE runledger.job_queue")
    owner.run("SET LOCAL lock_timeout = '20ms'")

    with pytest.raises(errors.LockNotAvailable):
        enqueue_job(owner.connection, JobRequest("test.job"))


def test_borrowing_changes_nothing_of_the_connection(owner):
    ledger = borrow(owner.connection)
    all_settings = text("SELECT string_agg(name || '=' || setting, ',' ORDER BY name) FROM pg_settings")
    settings = Statement("settings", all_settings)
    before = ledger.fetch(settings)

    enqueue_jobs(owner.connection, [JobRequest("test.job")] * 1000)

    assert ledger.fetch(settings) == before
    assert borrow(ledger) is ledger


def test_a_bulk_over_sqlalchemy_in_autocommit_is_refused(connection, database_url):
    a_definition(connection)
    engine = engine_of(database_url, "psycopg")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as core:
        with pytest.raises(errors.TransactionRequired):
            enqueue_jobs(core, [JobRequest("test.job")] * 2)
        assert enqueue_job(core, JobRequest("test.job")).is_new
    engine.dispose()

    assert count(connection, "job_queue") == 1


def test_a_bulk_over_psycopg_that_always_commits_is_refused(connection, database_url):
    a_definition(connection)
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url, autocommit=True))
    with engine.connect() as core, pytest.raises(errors.TransactionRequired):
        enqueue_jobs(core, [JobRequest("test.job")] * 2)
    engine.dispose()

    assert count(connection, "job_queue") == 0


def test_psycopg2_in_autocommit_commits_one_job_and_refuses_a_bulk(connection, database_url):
    a_definition(connection)
    with psycopg2_owner(database_url) as owner:
        owner.connection.autocommit = True
        assert enqueue_job(owner.connection, JobRequest("test.job")).is_new
        with pytest.raises(errors.TransactionRequired):
            enqueue_jobs(owner.connection, [JobRequest("test.job")] * 2)
        owner.run("BEGIN")
        enqueue_jobs(owner.connection, [JobRequest("test.job")] * 2)
        owner.run("ROLLBACK")

    assert count(connection, "job_queue") == 1


@pytest.fixture
def django(connection, database_url) -> Iterator[Any]:
    a_definition(connection)
    made = django_connection(database_url)
    yield made
    made.close()


def test_a_django_connection_outside_atomic_commits_by_itself(connection, django):
    enqueue_job(django, JobRequest("test.job"))

    assert count(connection, "job_queue") == 1
    with pytest.raises(errors.TransactionRequired):
        enqueue_jobs(django, [JobRequest("test.job")] * 2)


def atomic(django: Any) -> Any:
    """``transaction.atomic`` of a connection that belongs to no alias of the settings."""
    from django.db import transaction

    block = transaction.Atomic(using=None, savepoint=True, durable=False)
    return OwnAtomic(block, django)


class OwnAtomic:
    """Django finds its connection by alias; here the alias is replaced for the length of the block."""

    def __init__(self, block: Any, django: Any) -> None:
        self.block, self.django = block, django

    def __enter__(self) -> None:
        from django.db import connections

        connections["default"] = self.django
        self.block.__enter__()

    def __exit__(self, *raised: Any) -> Any:
        return self.block.__exit__(*raised)


def test_an_atomic_block_of_django_commits_and_rolls_back(connection, django):
    with atomic(django):
        enqueue_jobs(django, [JobRequest("test.job")] * 2)
        assert count(connection, "job_queue") == 0
    assert count(connection, "job_queue") == 2

    with pytest.raises(ZeroDivisionError), atomic(django):
        enqueue_jobs(django, [JobRequest("test.job")] * 1000)
        raise ZeroDivisionError
    assert count(connection, "job_queue") == 2


def test_an_inner_atomic_block_rolls_back_alone(connection, django):
    with atomic(django):
        enqueue_job(django, JobRequest("test.job", {"n": 1}))
        with pytest.raises(ZeroDivisionError), atomic(django):
            enqueue_job(django, JobRequest("test.job", {"n": 2}))
            raise ZeroDivisionError
        enqueue_job(django, JobRequest("test.job", {"n": 3}))

    assert [job.payload["n"] for job in list_jobs(connection, scope=ANY)] == [3, 1]


def test_a_broken_atomic_block_is_an_aborted_transaction(connection, django):
    with pytest.raises(ZeroDivisionError), atomic(django):
        django.set_rollback(True)
        for call in (enqueue_job, lambda one, request: enqueue_jobs(one, [request] * 1000)):
            with pytest.raises(errors.TransactionAborted):
                call(django, JobRequest("test.job"))
        raise ZeroDivisionError

    assert count(connection, "job_queue") == 0


def test_what_the_database_refuses_of_a_copy_is_our_error_over_django(connection, django):
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE unique_violation; END'"
    )
    connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON runledger.job_queue EXECUTE FUNCTION refuse()")

    try:
        with pytest.raises(errors.UniqueViolation) as refused, atomic(django):
            enqueue_jobs(django, [JobRequest("test.job", {"card": "4111"})] * 1000)
    finally:
        connection.execute("DROP FUNCTION refuse CASCADE")

    assert "4111" not in f"{refused.value} {refused.value.internal_message}"


def test_another_database_of_django_is_refused():
    from django.db.utils import ConnectionHandler

    sqlite = ConnectionHandler({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})["default"]

    with pytest.raises(errors.InvalidConfiguration, match="not PostgreSQL"):
        enqueue_job(sqlite, JobRequest("test.job"))
