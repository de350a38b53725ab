"""Why a job does not run, by the command line."""

from acceptance.command_line import document_of, enqueued, run_command

from runledger import Ledger


def test_the_screen_begins_with_the_verdict_and_ends_with_what_to_do(own_url: str) -> None:
    run_command("definition", "pause", "mail.receipt", "--reason", "no\x1b[31m mail", url=own_url)
    job_id = enqueued(own_url, "mail.receipt")

    lines = run_command("job", "explain", job_id, url=own_url).stdout.splitlines()

    assert lines[0].startswith("It waits: job type 'mail.receipt' is paused by cli:")
    assert "\x1b" not in "".join(lines)
    assert lines[1] == f"PENDING  mail.receipt  {job_id}  run 1, attempt 0 of 2"
    assert [line for line in lines if "✗ pause" in line]
    assert [line for line in lines if "✓ expiry" in line]
    assert lines[-4:] == [
        "What to do:",
        "  runledger definition resume mail.receipt",
        "  runledger worker --app MODULE:ATTR",
        "  runledger workers",
    ]


def test_the_document_is_the_one_that_was_reviewed(own_url: str) -> None:
    with Ledger(own_url) as ledger:
        job_id = str(ledger.enqueue("mail.receipt", delay=3_600).job_id)

    document = document_of(run_command("job", "explain", job_id, "--json", url=own_url))

    assert document == {
        "job_id": job_id,
        "job_type": "mail.receipt",
        "status": "PENDING",
        "stage": "scheduled",
        "run_number": 1,
        "attempt": 0,
        "max_attempts": 2,
        "verdict": "It waits: it is not due for another 60 min; and no worker is live at all.",
        "gates": [
            {"name": "expiry", "state": "OPEN", "text": "it does not expire"},
            {"name": "due", "state": "SHUT", "text": "it is not due for another 60 min"},
            {
                "name": "promoted",
                "state": "OPEN",
                "text": "it is not left behind among the jobs that wait for a time",
            },
            {
                "name": "definition",
                "state": "OPEN",
                "text": "job type 'mail.receipt' is defined, queue 'default'",
            },
            {"name": "pause", "state": "OPEN", "text": "its job type is not paused"},
            {"name": "limit", "state": "OPEN", "text": "its job type has no limit"},
            {"name": "rate", "state": "OPEN", "text": "its job type has no rate limit"},
            {"name": "worker", "state": "SHUT", "text": "no worker is live at all"},
            {"name": "enabled", "state": "OPEN", "text": "its job type is enabled"},
            {"name": "crash budget", "state": "OPEN", "text": "it has not crashed in this run"},
            {
                "name": "line",
                "state": "UNKNOWN",
                "text": "its place in line counts once nothing else holds it up",
            },
        ],
        "advice": [
            f"runledger job events {job_id}",
            "runledger worker --app MODULE:ATTR",
            "runledger workers",
        ],
        "ahead": 0,
        "estimated_start_seconds": None,
        "estimated_from": "jobs ahead of it: 0; attempts that the workers serving it ended in the last 120 s: 0",
    }


def test_a_job_that_does_not_exist_ends_with_four(own_url: str) -> None:
    assert run_command("job", "explain", "0198c0de-0000-7000-8000-000000000000", url=own_url).exit_code == 4
