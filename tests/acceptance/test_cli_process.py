"""What only a process shows: exit codes, two streams, signals, broken pipes, hostile arguments, unusable databases."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from importlib import metadata

import psycopg
import pytest
from acceptance.command_line import clean_environment, command_of, enqueued, run_command, run_program

PASSWORD = "canary-s3cret"


def one_clean_line(stderr: bytes) -> str:
    text = stderr.decode()
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


def test_version_and_help_go_to_standard_output() -> None:
    version = run_program("--version")
    assert (version.returncode, version.stderr) == (0, b"")
    assert version.stdout.startswith(b"runledger ")
    assert run_program("-h").stdout.startswith(b"Usage: runledger ")


def test_the_installed_script_names_this_entry() -> None:
    scripts = metadata.entry_points(group="console_scripts", name="runledger")
    assert [script.value for script in scripts] in ([], ["runledger.cli.main:main"])


def test_an_unknown_command_is_a_usage_error_in_text_and_in_json() -> None:
    wrong = run_program("jobs", "list")
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert "jobs" in one_clean_line(wrong.stderr)
    asked = run_program("job", "list", "--json", "--limit", "junk")
    assert (asked.returncode, asked.stdout) == (2, b"")
    assert json.loads(asked.stderr)["error"]["code"] == "cli.usage"


def test_without_a_database_the_hint_names_every_way_to_give_one() -> None:
    result = run_program("job", "list")
    assert (result.returncode, result.stdout) == (78, b"")
    said = one_clean_line(result.stderr)
    for way in ("--database-url", "RUNLEDGER_DATABASE_URL", "DATABASE_URL", "runledger db start"):
        assert way in said


UNUSABLE_URLS = {
    "wrong scheme": (f"mysql://me:{PASSWORD}@localhost/x", 78),
    "port 0": (f"postgresql://me:{PASSWORD}@localhost:0/x", 78),
    "port 65536": (f"postgresql://me:{PASSWORD}@localhost:65536/x", 78),
    "port abc": (f"postgresql://me:{PASSWORD}@localhost:abc/x", 78),
    "a newline": (f"postgresql://me:{PASSWORD}@localhost/x\npostgres", 78),
    "no URL": (f"localhost me {PASSWORD}", 78),
    "nobody listens": (f"postgresql://me:{PASSWORD}@localhost:1/x", 69),
    "no such socket": (f"postgresql://me:{PASSWORD}@/x?host=/nowhere", 69),
}


@pytest.mark.parametrize("name", UNUSABLE_URLS)
def test_an_unusable_database_url_is_one_clean_line_without_the_password(name: str) -> None:
    url, exit_code = UNUSABLE_URLS[name]
    for arguments in (["job", "list"], ["migrate", "-v"]):
        result = run_command(*arguments, "-d", url)
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert PASSWORD not in result.stderr
        assert "Error: " in result.stderr


def test_a_server_that_is_down_is_unavailable() -> None:
    result = run_program("stats", "--json", environment={"DATABASE_URL": UNUSABLE_URLS["nobody listens"][0]})
    assert (result.returncode, result.stdout) == (69, b"")
    assert json.loads(result.stderr)["error"]["code"] == "db.unavailable"
    assert PASSWORD.encode() not in result.stderr


def test_a_missing_database_is_unavailable_and_named(server_url: str) -> None:
    url = psycopg.conninfo.make_conninfo(server_url, dbname="no_such_database")
    result = run_program("job", "list", "-d", url)
    assert (result.returncode, result.stdout) == (69, b"")
    assert "no_such_database" in one_clean_line(result.stderr)


def test_a_wrong_password_is_told_by_the_server_and_never_repeated() -> None:
    with server_that_refuses_passwords() as port:
        url = f"postgresql://ada:{PASSWORD}@127.0.0.1:{port}/app?sslmode=disable&gssencmode=disable"
        plain, verbose = run_command("job", "list", "-d", url), run_command("job", "list", "-d", url, "-v")
    assert plain.exit_code == verbose.exit_code == 69
    assert "password authentication failed" in verbose.stderr
    assert PASSWORD not in plain.stderr + verbose.stderr


@contextlib.contextmanager
def server_that_refuses_passwords() -> Iterator[int]:
    """The port of a server that asks for a password and then says what PostgreSQL says to a wrong one."""
    fields = (b"SFATAL", b"VFATAL", b"C28P01", b'Mpassword authentication failed for user "ada"')
    refusal = b"".join(field + b"\0" for field in fields) + b"\0"

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4_096)
                connection.sendall(b"R" + (8).to_bytes(4) + (3).to_bytes(4))
                connection.recv(4_096)
                connection.sendall(b"E" + (len(refusal) + 4).to_bytes(4) + refusal)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_a_reader_that_leaves_early_is_no_failure(own_url: str) -> None:
    for _ in range(3):
        enqueued(own_url, "mail.receipt")
    for arguments in (["job", "list"], ["migrate", "--sql"], ["--help"]):
        read, write = os.pipe()
        os.close(read)
        environment = clean_environment(DATABASE_URL=own_url)
        try:
            result = subprocess.run(
                command_of(*arguments), stdout=write, stderr=subprocess.PIPE, env=environment, timeout=30, check=False
            )
        finally:
            os.close(write)
        assert (result.returncode, result.stderr) == (0, b"")


def test_arguments_and_input_that_are_not_text_are_refused(shop_url: str) -> None:
    environment = {"DATABASE_URL": shop_url}
    for arguments, stdin in (
        ([b"enqueue", b"mail\xff.receipt", b"{}"], b""),
        ([b"enqueue", b"mail.receipt", b'{"a": "\xff"}'], b""),
        ([b"enqueue", b"mail.receipt", b"-"], bytes(range(256))),
        ([b"job", b"list", b"--limit", b"\xff"], b""),
    ):
        result = run_program(*arguments, stdin=stdin, environment=environment)
        assert (result.returncode, result.stdout) == (2, b"")
        one_clean_line(result.stderr)


def test_a_narrow_locale_and_a_broken_width_change_nothing(shop_url: str) -> None:
    job_id = enqueued(shop_url, "mail.receipt", '{"name": "Zoë"}')
    environment = {
        "DATABASE_URL": shop_url,
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "COLUMNS": "0",
    }
    shown = run_program("job", "show", job_id, "--json", environment=environment)
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["payload"] == {"name": "Zoë"}
    assert run_program("job", "show", job_id, environment=environment).returncode == 0


def test_an_interrupt_ends_with_130(shop_url: str) -> None:
    job_id = enqueued(shop_url, "mail.receipt")
    environment = clean_environment(DATABASE_URL=f"{shop_url}")
    command = command_of("enqueue", "mail.receipt", "--key", job_id, "--wait")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, preexec_fn=_listen_to_interrupts
    )
    try:
        assert process.stderr is not None
        while b"waiting" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def _listen_to_interrupts() -> None:
    """A run in the background may have been started with interrupts ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_defect_is_one_line_and_its_traceback_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("runledger.cli.schema.migrations_as_sql", fail)
    plain, verbose = run_command("migrate", "--sql"), run_command("migrate", "--sql", "-v")
    assert plain.exit_code == verbose.exit_code == 1
    assert plain.stderr == "Error: unexpected RuntimeError: a defect (hint: -v shows where)\n"
    assert "Traceback" in verbose.stderr


def test_completion_scripts_and_completions_are_printed() -> None:
    assert "_RUNLEDGER_COMPLETE" in run_command("completion", "fish").stdout
    words = {"_RUNLEDGER_COMPLETE": "zsh_complete", "COMP_WORDS": "runledger mig", "COMP_CWORD": "1"}
    completed = run_program(environment=words)
    assert b"migrate" in completed.stdout


def _completions(words: str, position: int, **environment: str) -> list[str]:
    asked = {"_RUNLEDGER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)} | environment
    lines = run_program(environment=asked).stdout.decode().splitlines()
    return [line.partition(",")[2] for line in lines]


def test_the_names_of_the_database_are_offered(shop_url: str) -> None:
    assert _completions("runledger enqueue mail.", 2, RUNLEDGER_DATABASE_URL=shop_url) == ["mail.receipt"]
    assert _completions("runledger job list --type mail.", 4, RUNLEDGER_DATABASE_URL=shop_url) == ["mail.receipt"]


def test_without_a_database_nothing_is_offered_and_nothing_is_said() -> None:
    nowhere = "postgresql://postgres@127.0.0.1:1/none"
    completed = run_program(
        environment={
            "_RUNLEDGER_COMPLETE": "bash_complete",
            "COMP_WORDS": "runledger schedule pause ",
            "COMP_CWORD": "3",
            "RUNLEDGER_DATABASE_URL": nowhere,
        }
    )
    assert (completed.stdout.strip(), completed.stderr) == (b"", b"")
