"""Enqueue, look at, change and wait for jobs by the command line."""

import json
from pathlib import Path

import psycopg
import pytest
from acceptance.command_line import APP, document_of, enqueued, run_command, run_program

from runledger import JobStatus, Ledger, Scope
from runledger.postgres import job_walks
from runledger.postgres.operations import cancel_job
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import a_leased_job, dead_lettered

UNKNOWN_ID = "01900000-0000-7000-8000-000000000000"


def error_of(stderr: str) -> dict[str, str]:
    error = json.loads(stderr)["error"]
    assert set(error) == {"code", "message", "hint"}
    return error  # type: ignore[no-any-return]  # JSON


def test_enqueue_prints_the_id_alone_and_names_its_target_on_stderr(shop_url: str) -> None:
    result = run_command("enqueue", "mail.receipt", '{"order": 7}', url=shop_url)
    assert result.exit_code == 0
    with Ledger(shop_url) as ledger:
        assert ledger.get_job(result.stdout.strip()).payload == {"order": 7}
        assert result.stderr == f"target: {ledger.database.target}, schema runledger\n"


def test_enqueue_takes_every_option(shop_url: str) -> None:
    organization = "01900000-0000-7000-8000-00000000000a"
    job_id = enqueued(
        shop_url,
        "mail.receipt",
        "--at",
        "2031-01-02T03:04:05+01:00",
        "--priority",
        "-3",
        "--organization",
        organization,
        *("--tag", "nightly", "--tag", "a", "--max-attempts", "7", "--timeout", "90s"),
        *("--expires", "2032-01-01T00:00:00Z"),
    )
    shown = document_of(run_command("job", "show", job_id, "--organization", organization, "--json", url=shop_url))
    assert shown["next_run_at"] == "2031-01-02T02:04:05Z"
    assert (shown["tags"], shown["max_attempts"], shown["timeout_seconds"]) == (["a", "nightly"], 7, 90)
    assert shown["expires_at"] == "2032-01-01T00:00:00Z"
    assert (shown["priority"], shown["organization_id"], shown["payload"]) == (-3, organization, {})
    assert run_command("job", "show", job_id, "--organization", "none", url=shop_url).exit_code == 4


def test_in_counts_from_now(shop_url: str) -> None:
    assert run_command("enqueue", "mail.receipt", "--delay", "90m", url=shop_url).exit_code == 0
    job_id = enqueued(shop_url, "mail.receipt", "--in", "90m")
    assert document_of(run_command("job", "show", job_id, "--json", url=shop_url))["stage"] == "scheduled"


def test_a_key_answers_with_the_same_job_and_refuses_another_request(shop_url: str) -> None:
    first = document_of(run_command("enqueue", "mail.receipt", '{"n": 1}', "--key", "k", "--json", url=shop_url))
    again = document_of(run_command("enqueue", "mail.receipt", '{"n": 1}', "--key", "k", "--json", url=shop_url))
    assert (first["is_new"], again["is_new"]) == (True, False)
    assert first["job_id"] == again["job_id"]
    other = run_command("enqueue", "mail.receipt", '{"n": 2}', "--key", "k", "--json", url=shop_url)
    assert other.exit_code == 5
    assert error_of(other.stderr)["code"] == "job.idempotency_conflict"


def test_the_payload_comes_from_a_file_or_from_standard_input(shop_url: str, tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{"from": "a file"}')
    with Ledger(shop_url) as ledger:
        assert ledger.get_job(enqueued(shop_url, "mail.receipt", f"@{file}")).payload == {"from": "a file"}
        piped = run_command("enqueue", "mail.receipt", "-", stdin='{"from": "a pipe"}', url=shop_url)
        assert ledger.get_job(piped.stdout.strip()).payload == {"from": "a pipe"}


OUTSIDE_THE_GATE: dict[str, str | bytes] = {
    "a NUL": '{"a": "\\u0000"}',
    "NaN": '{"a": [NaN]}',
    "infinity": '{"a": -Infinity}',
    "a lone surrogate": '{"a": "\\ud800"}',
    "depth 65": "[" * 65 + "]" * 65,
    "depth 20,000": "[" * 20_000 + "]" * 20_000,
    "5,000 digits": '{"a": ' + "7" * 5_000 + "}",
    "300 KiB": json.dumps("canary-payload" * 22_000),
    "no JSON": '{"canary-payload": ',
    "a binary file": b"\xff\xfe\x00canary-payload",
    "17 MiB": b" " * (17 * 2**20),
}


@pytest.mark.parametrize("name", OUTSIDE_THE_GATE)
def test_a_payload_outside_the_gate_is_refused_and_nothing_is_written(own_url: str, name: str) -> None:
    result = run_command("enqueue", "mail.receipt", "-", stdin=OUTSIDE_THE_GATE[name], url=own_url)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "canary-payload" not in result.stderr
    assert run_command("job", "list", url=own_url).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["nope", "--app", APP], 2, "mail.receipt"),
        (["nope"], 5, "definition sync"),
        (["report.old", "--app", APP], 5, "disabled"),
        (["order.ship", '{"number": "x"}', "--app", APP], 2, "payload.number"),
        (["mail.receipt", "{}", "--at", "2031-01-02"], 2, "time zone"),
        (["mail.receipt", "{}", "--at", "soon"], 2, "is not a time"),
        (["mail.receipt", "{}", "--in", "-5m"], 2, "is not a duration"),
        (["mail.receipt", "{}", "--in", "5m", "--at", "2031-01-02T00:00:00Z"], 2, "exclude each other"),
        (["mail.receipt", "{}", "--priority", "3000000000"], 2, "priority"),
        (["mail.receipt", "@/does/not/exist"], 2, "cannot read"),
        (["mail.receipt", "{}", "--organization", "acme"], 2, "UUID"),
        ([" mail.receipt", "{}"], 2, "blank"),
    ],
)
def test_a_wrong_request_is_refused_with_its_reason(
    shop_url: str, arguments: list[str], exit_code: int, says: str
) -> None:
    result = run_command("enqueue", *arguments, url=shop_url)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert says in result.stderr


def test_waiting_ends_with_6_when_the_time_runs_out_and_shows_the_job(shop_url: str) -> None:
    result = run_command("enqueue", "mail.receipt", "--wait=20ms", "--json", url=shop_url)
    assert result.exit_code == 6
    assert json.loads(result.stdout)["status"] == "PENDING"
    assert error_of(result.stderr)["code"] == "job.wait_timed_out"


def test_a_wait_takes_the_duration_behind_it(shop_url: str) -> None:
    result = run_command("enqueue", "mail.receipt", "--wait", "20ms", '{"n": 1}', url=shop_url)
    assert result.exit_code == 6
    assert 'payload\t{"n":1}\n' in result.stdout


def test_jobs_are_rescheduled_together_or_not_at_all(shop_url: str) -> None:
    first, second = enqueued(shop_url, "mail.receipt"), enqueued(shop_url, "mail.receipt", "--in", "1h")
    assert run_command("job", "reschedule", first, second, url=shop_url).exit_code == 2
    assert run_command("job", "reschedule", first, UNKNOWN_ID, "--in", "1h", url=shop_url).exit_code == 4
    jobs = document_of(run_command("job", "reschedule", first, second, "--in", "2h", "--json", url=shop_url))["jobs"]
    assert [one["stage"] for one in jobs] == ["scheduled", "scheduled"]
    moved = run_command("job", "reschedule", first, "--at", "2031-01-02T03:04:05Z", "--reason", "later", url=shop_url)
    assert "2031-01-02T03:04:05Z" in moved.stdout
    [told] = [
        one
        for one in document_of(run_command("job", "events", first, "--json", url=shop_url))["events"]
        if one["reason"] == "later"
    ]
    assert (told["event_type"], told["actor"][:4]) == ("RESCHEDULED", "cli:")


def test_a_page_that_is_full_says_how_to_go_on(own_url: str) -> None:
    ids = [enqueued(own_url, "mail.receipt") for _ in range(2)]
    cut = run_command("job", "list", "--limit", "1", url=own_url)
    assert cut.stderr == f"there may be more; next page: --before {ids[1]}\n"
    assert run_command("job", "list", url=own_url).stderr == ""


def test_a_dead_letter_says_what_its_job_is_now(own_url: str) -> None:
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        job = a_leased_job(connection, "mail.receipt")
        settle_jobs(connection, [dead_lettered(job)])
    assert "\tDEAD_LETTERED\t" in run_command("dead", "list", url=own_url).stdout
    run_command("job", "requeue", job.job_id, url=own_url)
    assert "\tPENDING\t" in run_command("dead", "list", url=own_url).stdout


def test_a_bare_wait_leaves_the_payload_alone(shop_url: str) -> None:
    result = run_command("enqueue", "mail.receipt", "--wait", "{broken", url=shop_url)
    assert "payload is not JSON" in result.stderr


def test_waiting_for_a_job_that_did_not_succeed_ends_with_3(shop_url: str) -> None:
    job_id = enqueued(shop_url, "mail.receipt")
    with Ledger(shop_url) as ledger, ledger.begin() as connection:
        cancel_job(connection, job_id, scope=Scope.any())
    result = run_command("job", "wait", job_id, url=shop_url)
    assert result.exit_code == 3
    assert "status\tCANCELED\n" in result.stdout


@pytest.mark.parametrize("command", ["show", "attempts", "events", "logs", "cancel", "requeue", "wait"])
@pytest.mark.parametrize("job_id", [UNKNOWN_ID, "not-a-uuid"])
def test_a_job_that_does_not_exist_is_not_found(shop_url: str, command: str, job_id: str) -> None:
    result = run_command("job", command, job_id, "--json", url=shop_url)
    assert (result.exit_code, result.stdout) == (4, "")
    assert error_of(result.stderr)["code"] == "job.not_found"


def test_pages_of_jobs_follow_each_other(own_url: str) -> None:
    made = [enqueued(own_url, "mail.receipt") for _ in range(3)]
    page = document_of(run_command("job", "list", "--limit", "2", "--json", url=own_url))
    rest = document_of(run_command("job", "list", "--before", page["next_before"], "--json", url=own_url))
    assert [job["job_id"] for job in page["jobs"] + rest["jobs"]] == made[::-1]
    assert rest["next_before"] is None


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1000000000", "junk"])
def test_a_limit_outside_the_page_is_a_usage_error(shop_url: str, limit: str) -> None:
    assert run_command("job", "list", "--limit", limit, url=shop_url).exit_code == 2


def test_jobs_are_filtered_by_status_and_type(own_url: str) -> None:
    first, second = enqueued(own_url, "mail.receipt"), enqueued(own_url, "order.ship", '{"number": 1}')
    run_command("job", "cancel", first, "--reason", "no longer", url=own_url)
    assert run_command("job", "list", "--status", "canceled", url=own_url).stdout.split("\t")[0] == first
    assert run_command("job", "list", "--type", "order.ship", url=own_url).stdout.split("\t")[0] == second


def test_jobs_are_cancelled_together_or_not_at_all(shop_url: str) -> None:
    waiting, ended = enqueued(shop_url, "mail.receipt"), enqueued(shop_url, "mail.receipt")
    assert run_command("job", "cancel", ended, url=shop_url).exit_code == 0
    refused = run_command("job", "cancel", waiting, ended, url=shop_url)
    assert (refused.exit_code, refused.stdout) == (5, "")
    with Ledger(shop_url) as ledger:
        assert ledger.get_job(waiting).status == JobStatus.PENDING


def test_who_cancelled_and_requeued_and_why_stands_in_the_timeline(shop_url: str) -> None:
    job_id = enqueued(shop_url, "mail.receipt")
    run_command("job", "cancel", job_id, "--reason", "a mistake", url=shop_url)
    run_command("job", "requeue", job_id, "--reason", "it was none", url=shop_url)
    events = document_of(run_command("job", "events", job_id, "--json", url=shop_url))["events"]
    told = {event["event_type"]: (event["actor"], event["reason"]) for event in events}
    assert told["CANCELED"][1] == "a mistake"
    assert told["REQUEUED"][1] == "it was none"
    assert told["REQUEUED"][0].startswith("cli:")


def test_a_worker_runs_what_was_enqueued_and_the_commands_show_it(own_url: str) -> None:
    good = enqueued(own_url, "mail.receipt", '{"order": 7}')
    bad = enqueued(own_url, "mail.receipt", '{"to": "nobody"}')
    environment = {"RUNLEDGER_DATABASE_URL": own_url, "RUNLEDGER_APP": APP}
    worked = run_program("worker", "--drain", "-p", "1", "-q", environment=environment)
    assert worked.returncode == 0, worked.stderr.decode()

    waited = run_command("job", "wait", good, "--timeout", "5s", url=own_url)
    assert waited.exit_code == 0
    assert 'output\t{"sent":true}\n' in waited.stdout
    [attempt] = document_of(run_command("job", "attempts", bad, "--json", url=own_url))["attempts"]
    assert (attempt["outcome"], attempt["error_code"]) == ("TERMINAL", "mail.no_recipient")
    logs = run_command("job", "logs", good, url=own_url).stdout
    assert "sending\\x1b[31m" in logs
    assert "\x1b" not in logs
    dead = run_command("dead", "list", url=own_url).stdout
    assert dead.count("\n") == 1
    assert "the order has\\nno address" in dead
    stats = document_of(run_command("stats", "--json", url=own_url))
    figures = {one["name"]: (one["attempts"], one["success_rate"]) for one in stats["metrics"]}
    assert figures == {"mail.receipt": (2, 0.5), "order.ship": (0, None), "report.old": (0, None)}
    _requeue_the_dead(own_url, bad)


def _requeue_the_dead(url: str, job_id: str) -> None:
    unconfirmed = run_command("dead", "requeue", "--type", "mail.receipt", url=url)
    assert unconfirmed.exit_code == 5
    assert "1 jobs match" in unconfirmed.stderr
    assert "--yes" in unconfirmed.stderr
    assert document_of(run_command("dead", "requeue", "--all", "--yes", "--json", url=url)) == {
        "matched": 1,
        "changed": 1,
        "skipped": 0,
        "of_workflows": 0,
    }
    with Ledger(url) as ledger:
        assert ledger.get_job(job_id).run_number == 2


@pytest.mark.parametrize("arguments", [[], ["--yes"], [UNKNOWN_ID, "--all"], [UNKNOWN_ID, "--type", "x"]])
def test_a_bulk_requeue_needs_exactly_one_way_to_choose(shop_url: str, arguments: list[str]) -> None:
    assert run_command("dead", "requeue", *arguments, url=shop_url).exit_code == 2


def test_a_bulk_requeue_goes_on_after_a_short_page(own_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_walks, "LONGEST_WALK_OF_PLACES", 2)
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        for job_type in ("mail.receipt", "shop.pack", "shop.pack", "shop.pack"):
            settle_jobs(connection, [dead_lettered(a_leased_job(connection, job_type))])

    done = document_of(run_command("dead", "requeue", "--type", "mail.receipt", "--yes", "--json", url=own_url))

    assert done["changed"] == 1


def test_pages_of_dead_letters_follow_each_other(own_url: str) -> None:
    with psycopg.connect(own_url, autocommit=True) as connection:
        for number in range(3):
            connection.execute(
                "INSERT INTO runledger.job_dead_letters"
                " (job_id, job_type, run_number, attempt, payload_snapshot, failed_at)"
                " VALUES (%s, 'mail.receipt', 1, 1, '{}', '2026-01-02T03:04:05.678901Z')",
                (enqueued(own_url, "mail.receipt", f'{{"n": {number}}}'),),
            )
    page = document_of(run_command("dead", "list", "--limit", "2", "--json", url=own_url))
    rest = document_of(run_command("dead", "list", "--before", page["next_before"], "--json", url=own_url))
    assert len({letter["job_id"] for letter in page["dead_letters"] + rest["dead_letters"]}) == 3
    assert rest["next_before"] is None
    assert f"--before {page['next_before']}" in run_command("dead", "list", "--limit", "2", url=own_url).stderr
    assert run_command("dead", "list", "--before", "yesterday", url=own_url).exit_code == 2
