"""Django's tasks on Runledger: the same transaction, every option, and results that tell what happened."""

import importlib.util
from pathlib import Path

import psycopg
import pytest
from contrib.django.projects import PATIENCE_SECONDS, Project, database, make_project

PACKAGE = "django.tasks" if importlib.util.find_spec("django.tasks") else "django_tasks"
TASKS = """
TASKS = {
    "default": {
        "BACKEND": "runledger.contrib.django.tasks.RunledgerBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {"MAX_ATTEMPTS": 2},
    }
}
"""
SOME_TASKS = f"""
from {PACKAGE} import task
from {PACKAGE}.signals import task_finished, task_started

def told(name):
    def tell(sender, task_result, **kwargs):
        with open("signals.txt", "a") as file:
            print(name, task_result.status, file=file)
    return tell

started, finished = told("started"), told("finished")
task_started.connect(started)
task_finished.connect(finished)

@task
def add(a, b=1):
    return {{"sum": a + b}}

@task(takes_context=True, queue_name="mail", priority=5)
def second_time(context):
    if context.attempt == 1:
        raise ValueError("the first time")
    return [context.attempt, context.task_result.task.queue_name]

@task
def never():
    raise LookupError("always")

@task
async def later():
    return "from a coroutine"
"""


@pytest.fixture
def office(shop_url: str, tmp_path: Path) -> Project:
    """A project with tasks in two queues."""
    project = make_project(tmp_path, {"default": database(shop_url)}, more=TASKS)
    project.write("shop/tasks.py", SOME_TASKS)
    project.python(
        "from runledger.contrib.django import catalog, ledger_connection as c\ncatalog.sync_definitions(c())"
    )
    return project


def drain(project: Project, url: str) -> None:
    """Every job has ended; retries are due at once."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE runledger.job_definitions SET retry_base_seconds = 0.01, retry_jitter = false")
    process = project.start("runledger", "worker", "-p", "1", "--drain", "--poll-interval", "50ms", "--no-sync")
    try:
        assert process.wait(PATIENCE_SECONDS) == 0, (project.folder / "process.log").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.process
def test_results_tell_what_happened(office: Project, shop_url: str) -> None:
    ids = office.python(
        f"""
        from shop import tasks
        from {PACKAGE} import TaskResultStatus
        results = [tasks.add.enqueue(1, b=2), tasks.second_time.enqueue(), tasks.never.enqueue(), tasks.later.enqueue()]
        for one in results:
            one.refresh()
            assert one.status == TaskResultStatus.READY and one.attempts == 0 and one.started_at is None
        print(" ".join(one.id for one in results))
        """
    ).split()
    drain(office, shop_url)

    said = office.python(
        f"""
        from shop import tasks
        add, second, never, later = [
            task.get_result(id) for task, id in zip((tasks.add, tasks.second_time, tasks.never, tasks.later), {ids!r})
        ]
        print(add.return_value, add.args, add.kwargs, add.errors)
        print(second.return_value, second.attempts, len(second.worker_ids), second.task.priority)
        [error] = second.errors
        print([error.exception_class.__name__], "the first time" in error.traceback)
        print(never.status, never.is_finished, [error.exception_class for error in never.errors])
        print(later.return_value)
        print(all(r.enqueued_at <= r.started_at <= r.finished_at for r in (add, second, never, later)))
        print(second.started_at < second.last_attempted_at <= second.finished_at)
        """
    )
    assert said.splitlines() == [
        "{'sum': 3} [1] {'b': 2} []",
        "[2, 'mail'] 2 2 5",
        "['ValueError'] True",
        "FAILED True [<class 'LookupError'>, <class 'LookupError'>]",
        "from a coroutine",
        "True",
        "True",
    ]
    told = (office.folder / "signals.txt").read_text().split("\n")
    assert sorted(line for line in told if line.startswith("finished")) == [
        "finished FAILED",
        "finished SUCCESSFUL",
        "finished SUCCESSFUL",
        "finished SUCCESSFUL",
    ]
    assert sum(line.startswith("started RUNNING") for line in told) == 6


def test_options_reach_the_job(office: Project) -> None:
    said = office.python(
        f"""
        from datetime import timedelta
        from django.utils import timezone
        from {PACKAGE}.exceptions import TaskResultDoesNotExist, TaskResultMismatch
        from runledger.contrib.django import enqueue
        from runledger.contrib.django.models import Job
        from shop import tasks
        moment = timezone.now() + timedelta(hours=1)
        for priority in (-100, 100):
            result = tasks.add.using(priority=priority, run_after=moment, queue_name="mail").enqueue(1)
            job = Job.objects.get(pk=result.id)
            print(job.priority, job.stage, job.next_run_at == moment, job.job_type, job.max_attempts)
            print(tasks.add.get_result(result.id).task.run_after == moment)
        for wrong in ("0199aaaa-0000-7000-8000-000000000000", "nonsense", str(enqueue("shop.pay", {{}}).job_id)):
            try:
                tasks.add.get_result(wrong)
            except TaskResultDoesNotExist:
                print("no such result")
        try:
            tasks.never.get_result(result.id)
        except TaskResultMismatch:
            print("another task")
        """
    )
    assert said.splitlines() == [
        "-100 scheduled True django.task.default.mail 2",
        "True",
        "100 scheduled True django.task.default.mail 2",
        "True",
        *["no such result"] * 3,
        "another task",
    ]


def test_a_task_is_enqueued_in_the_callers_transaction(office: Project) -> None:
    said = office.python(
        f"""
        from {PACKAGE}.exceptions import TaskResultDoesNotExist
        from shop import tasks
        try:
            with transaction.atomic():
                result = tasks.add.enqueue(1)
                print(tasks.add.get_result(result.id).status)
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        try:
            result.refresh()
        except TaskResultDoesNotExist:
            print("never was")
        """
    )
    assert said.splitlines() == ["READY", "never was"]


def test_a_backend_that_is_set_up_wrong_is_named_by_check(office: Project) -> None:
    settings = (office.folder / "settings.py").read_text().replace('"MAX_ATTEMPTS": 2', '"RETRIES": 2')
    office.write("settings.py", settings)

    said = office.run("check", code=1).stderr

    assert "runledger.E012" in said
    assert "has no 'RETRIES'" in said
