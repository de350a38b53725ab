"""Runtime configs by the command line."""

from acceptance.command_line import document_of, run_command


def test_a_config_is_set_shown_and_listed(own_url: str) -> None:
    made = document_of(run_command("config", "set", "mail.receipt", '{"rate": 5}', "--json", url=own_url))
    assert (made["config"], made["revision"]) == ({"rate": 5}, 1)
    assert document_of(run_command("config", "get", "mail.receipt", "--json", url=own_url)) == made
    [row] = [line.split("\t") for line in run_command("config", "list", url=own_url).stdout.splitlines()]
    assert (row[0], row[2], row[-1]) == ("mail.receipt", "1", '{"rate":5}')


def test_a_change_of_another_revision_is_refused(own_url: str) -> None:
    run_command("config", "set", "mail.receipt", "{}", "--expect", "0", url=own_url)
    late = run_command("config", "set", "mail.receipt", '{"late": true}', "--expect", "0", "--json", url=own_url)
    assert (late.exit_code, "job.runtime_config_conflict" in late.stderr) == (5, True)


def test_what_is_no_object_is_a_usage_error_and_what_is_missing_is_not_found(shop_url: str) -> None:
    assert run_command("config", "set", "mail.receipt", "[1]", url=shop_url).exit_code == 2
    assert "config is not JSON" in run_command("config", "set", "mail.receipt", "rate=5", url=shop_url).stderr
    assert run_command("config", "get", "order.ship", url=shop_url).exit_code == 4
