"""The admin shows what happened and changes jobs with a reason; it never counts millions."""

from pathlib import Path

import pytest
from contrib.django.projects import ALL_APPS, Project, database, make_project

SETUP = """
import re
from django.contrib.auth.models import Permission, User
from django.test import Client
from runledger import Scope, get_job
from runledger.contrib.django import enqueue, ledger_connection
from runledger.contrib.django.models import Job
from runledger.postgres.reads import list_job_events

def client_with(*codenames):
    user, _ = User.objects.get_or_create(username="ada", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="runledger", codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client

def act(client, action, ids, reason="because"):
    data = {"action": action, "_selected_action": [str(one) for one in ids], "reason": reason, "index": "0"}
    return client.post("/admin/runledger/job/", data, follow=True).content.decode()
"""


@pytest.fixture
def desk(shop_url: str, tmp_path: Path) -> Project:
    """A project with the admin."""
    project = make_project(tmp_path, {"default": database(shop_url)}, apps=ALL_APPS, more='STATIC_URL = "static/"')
    project.write(
        "urls.py",
        """
        from django.contrib import admin
        from django.urls import path

        urlpatterns = [path("admin/", admin.site.urls)]
        """,
    )
    return project


def test_who_may_only_look_sees_lists_and_pages_without_actions(desk: Project) -> None:
    said = desk.python(
        SETUP
        + """
job = enqueue("shop.pay", {"order": "<script>"})
client = client_with("view_job", "view_schedule", "view_workflowrun")
for model in ("job", "schedule", "workflowrun"):
    print(client.get(f"/admin/runledger/{model}/").status_code)
found = client.get("/admin/runledger/job/?status=PENDING&job_type=shop.pay").content.decode()
print(str(job.job_id) in found, "cancel_jobs" in found)
print(str(job.job_id) in client.get(f"/admin/runledger/job/?q={job.job_id}").content.decode())
print(str(job.job_id) in client.get("/admin/runledger/job/?q=nonsense").content.decode())
page = client.get(f"/admin/runledger/job/{job.job_id}/change/").content.decode()
print("ENQUEUED" in page, "<script>\\"" in page)
act(client, "cancel_jobs", [job.job_id])
print(get_job(ledger_connection(), job.job_id, scope=Scope.any()).status)
print(Client().get("/admin/runledger/job/").status_code)
"""
    )
    assert said.splitlines() == ["200"] * 3 + ["True False", "True", "False", "True False", "PENDING", "302"]


def test_an_operator_cancels_requeues_and_runs_now_with_a_reason(desk: Project) -> None:
    said = desk.python(
        SETUP
        + """
job = enqueue("shop.pay", {"order": 1}, delay=3600)
def state():
    found = get_job(ledger_connection(), job.job_id, scope=Scope.any())
    return f"{found.status} {found.stage} {found.run_number}"
client = client_with("view_job", "operate_job")
print("Say why" in act(client, "cancel_jobs", [job.job_id], reason=" "), state())
act(client, "run_jobs_now", [job.job_id])
print(state())
act(client, "cancel_jobs", [job.job_id])
print(state())
print("cannot be cancelled" in act(client, "cancel_jobs", [job.job_id]))
act(client, "requeue_jobs", [job.job_id])
print(state())
events = list_job_events(ledger_connection(), job.job_id, scope=Scope.any())
print([(one.event_type.value, one.actor, one.reason) for one in events if one.actor])
"""
    )
    assert said.splitlines() == [
        "True PENDING scheduled 1",
        "PENDING queued 1",
        "CANCELED completed 1",
        "True",
        "PENDING queued 2",
        str([(event, "ada", "because") for event in ("RESCHEDULED", "CANCELED", "REQUEUED")]),
    ]


def test_the_page_of_a_failed_job_shows_its_traceback(desk: Project) -> None:
    said = desk.python(
        SETUP
        + """
from dataclasses import replace
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import a_leased_job, dead_lettered
job = a_leased_job(ledger_connection(), "shop.pay")
settle_jobs(ledger_connection(), [replace(dead_lettered(job), traceback='File "<pay.py>", line 7')])
page = client_with("view_job").get(f"/admin/runledger/job/{job.job_id}/change/").content.decode()
print("<pre>File &quot;&lt;pay.py&gt;&quot;, line 7</pre>" in page)
"""
    )
    assert said == "True"


def test_a_list_counts_no_further_than_it_shows(desk: Project) -> None:
    said = desk.python(
        SETUP
        + """
from django.db import connection
from django.test.utils import CaptureQueriesContext
from runledger.contrib.django import catalog, enqueue_many
enqueue_many([catalog.request("shop.pay", {})] * 1100)
client = client_with("view_job")
with CaptureQueriesContext(connection) as queries:
    page = client.get("/admin/runledger/job/").content.decode()
counts = [one["sql"] for one in queries if "COUNT" in one["sql"] and "jobs" in one["sql"]]
print(len(counts), all("LIMIT 1000" in one for one in counts), "1000 jobs" in page)
"""
    )
    assert said.splitlines()[-1] == "1 True True"


def test_nothing_is_written_through_the_models(desk: Project) -> None:
    said = desk.python(
        SETUP
        + """
enqueue("shop.pay", {})
job = Job.objects.get()
for change in (job.save, job.delete):
    try:
        change()
    except TypeError as error:
        print(error)
"""
    )
    assert said.splitlines() == ["Job is read-only; use the functions of runledger"] * 2


def test_a_filter_finds_the_few_among_many_and_says_what_it_did_not_look_at(desk: Project) -> None:
    said = desk.python(
        SETUP
        + """
from runledger import cancel_job
from runledger.contrib.django import catalog, enqueue_many
rare = enqueue("shop.pay", {})
cancel_job(ledger_connection(), rare.job_id, scope=Scope.any(), reason="because")
enqueue_many([catalog.request("shop.pay", {})] * 2_100)
client = client_with("view_job", "view_workflowrun")
found = client.get("/admin/runledger/job/?status=CANCELED&job_type=shop.pay").content.decode()
print(str(rare.job_id) in found, "1 job" in found, "did not look at" in found)
print("200 jobs" in client.get("/admin/runledger/job/?status=PENDING").content.decode())
print("did not look at" in client.get("/admin/runledger/job/?status=PENDING&job_type=other").content.decode())
print("0 jobs" in client.get("/admin/runledger/job/?status=nonsense").content.decode())
print("0 workflow runs" in client.get("/admin/runledger/workflowrun/?status=CANCELED").content.decode())
"""
    )
    assert said.splitlines() == ["True True False", "True", "True", "True", "True"]
