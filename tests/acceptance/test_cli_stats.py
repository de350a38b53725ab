"""The figures by the command line."""

import re

from acceptance.command_line import document_of, enqueued, run_command

from runledger import Outcome

SHAPE = {
    "name": str,
    "ready": int,
    "scheduled": int,
    "leased": int,
    "stale_leases": int,
    "oldest_due_seconds": float,
    "attempts": int,
    "attempts_per_second": float,
    "success_rate": type(None),
    "outcomes": {outcome.value: int for outcome in Outcome},
    "dead_lettered": int,
    "wait": type(None),
    "duration": type(None),
}


def shape_of(value: object) -> object:
    return {name: shape_of(one) for name, one in value.items()} if isinstance(value, dict) else type(value)


def test_the_document_has_its_shape(own_url: str) -> None:
    enqueued(own_url, "mail.receipt")

    stats = document_of(run_command("stats", "--json", url=own_url))

    assert list(stats) == ["by", "since", "until", "metrics"]
    assert stats["by"] == "type"
    [line] = [one for one in stats["metrics"] if one["name"] == "mail.receipt"]
    assert shape_of(line) == SHAPE
    assert list(line) == list(SHAPE)
    assert line["ready"] == 1


def test_it_says_since_when_attempts_are_counted(own_url: str) -> None:
    said = run_command("stats", "--since", "10m", url=own_url).stderr
    assert re.search(r"whole hours: these finished since \S+:00:00Z\n", said)


def test_lines_stand_for_what_was_asked(own_url: str) -> None:
    enqueued(own_url, "mail.receipt")

    assert run_command("stats", "--by", "queue", url=own_url).stdout.startswith("default\t1\t0\t0\t")
    assert run_command("stats", "--by", "worker", "--since", "24h", url=own_url).stdout == ""
    assert run_command("stats", "--by", "worker", "--organization", "none", url=own_url).exit_code == 2
    assert run_command("stats", "--by", "color", url=own_url).exit_code == 2
