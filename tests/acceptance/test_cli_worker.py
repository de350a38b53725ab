"""``runledger worker`` before any process starts: settings, app, database, schema."""

from pathlib import Path

import pytest
from acceptance.command_line import APP, document_of, run_command, run_program

BROKEN_APPS = {
    "raises.py": ("import os\n\n1 / 0\n", ["ZeroDivisionError", "division by zero", "raises.py", "line 3"]),
    "exits.py": ("import sys\n\n\nsys.exit('no licence')\n", ["SystemExit", "no licence", "exits.py", "line 4"]),
    "broken.py": ("def catalog(:\n", ["SyntaxError", "broken.py", "line 1"]),
    "lacks.py": ("catalogue = 1\n", ["AttributeError", "catalog"]),
    "other.py": ("catalog = {}\n", ["dict", "not a JobCatalog"]),
    "needs.py": ("import a_library_that_is_not_there\n", ["ModuleNotFoundError", "a_library_that_is_not_there"]),
}


@pytest.mark.parametrize("file", BROKEN_APPS)
def test_an_app_that_does_not_import_shows_the_true_exception_and_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    source, said = BROKEN_APPS[file]
    module = f"{tmp_path.name}_{file.removesuffix('.py')}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    result = run_command("worker", "--check", "--app", f"{module}:catalog", "-d", "postgresql://localhost:1/x")
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.count("\n") == 1
    for text in said:
        assert text in result.stderr


@pytest.mark.parametrize("app", ["os;system", "..shop:catalog", "shop", "shop:", ":catalog", "no_such_module:catalog"])
def test_an_app_that_is_not_module_and_attribute_is_bad_configuration(app: str) -> None:
    assert run_command("worker", "--check", "--app", app, "-d", "postgresql://localhost:1/x").exit_code == 78


def test_the_app_of_the_current_directory_is_importable(tmp_path: Path, shop_url: str) -> None:
    (tmp_path / "local_jobs.py").write_text("from runledger import JobCatalog\ncatalog = JobCatalog()\n")
    (tmp_path / "json.py").write_text("raise RuntimeError('hijacked')\n")
    environment = {"RUNLEDGER_DATABASE_URL": shop_url, "PYTHONSAFEPATH": "1"}
    result = run_program(
        "worker", "--check", "--app", "local_jobs:catalog", directory=tmp_path, environment=environment
    )
    assert result.returncode == 0, result.stderr.decode()


def test_a_check_tells_what_a_worker_would_use(shop_url: str) -> None:
    found = document_of(run_command("worker", "--check", "--app", APP, "-p", "3", "--json", url=shop_url))
    assert found["processes"] == 3
    assert found["job_types"] == ["mail.receipt", "order.ship", "report.old"]
    assert found["schema"] == "runledger"


def test_a_worker_without_an_app_is_a_usage_error(shop_url: str) -> None:
    result = run_command("worker", url=shop_url)
    assert result.exit_code == 2
    assert "RUNLEDGER_APP" in result.stderr


@pytest.mark.parametrize("value", ["abc", "1e3", "0x10", "1_000", "٣", "inf", "-1", "9" * 20])
def test_a_variable_that_does_not_parse_is_bad_configuration(value: str) -> None:
    result = run_command("worker", "--check", "--app", APP, JOBS_LEASE_TTL_SECONDS=value)
    assert result.exit_code == 78
    assert "JOBS_LEASE_TTL_SECONDS" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "exit_code"),
    [
        ("-p", "0", 78),
        ("-p", "many", 2),
        ("--lease-ttl", "9s", 78),
        ("--lease-ttl", "10.5s", 2),
        ("--poll-interval", "0", 78),
        ("--poll-interval", "0.1ms", 2),
        ("--queues", "a,,b", 2),
        ("--max-memory", "-1", 78),
        ("--health-addr", "8177", 78),
        ("--health-addr", "127.0.0.1:99999", 78),
        ("--log-level", "loud", 2),
    ],
)
def test_an_option_outside_its_limits_is_refused(option: str, value: str, exit_code: int) -> None:
    assert run_command("worker", "--check", "--app", APP, option, value).exit_code == exit_code


def test_a_check_shows_the_queues_and_warns_of_one_that_no_job_type_is_in(shop_url: str) -> None:
    result = run_command("worker", "--check", "--app", APP, "--queues", "typo,default", url=shop_url)
    assert result.exit_code == 0
    assert 'queues\t["typo","default"]' in result.stdout
    assert "no job type of the catalog is in queue 'typo' (queues: " in result.stderr
    assert result.stderr.count("Warning: ") == 1
    found = document_of(run_command("worker", "--check", "--app", APP, "--queues", "default", "--json", url=shop_url))
    assert found["queues"] == ["default"]
    assert document_of(run_command("worker", "--check", "--app", APP, "--json", url=shop_url))["queues"] == "all"


def test_a_check_refuses_an_app_that_could_not_be_preloaded(tmp_path: Path, shop_url: str) -> None:
    source = "import threading\nfrom runledger import JobCatalog\n\ncatalog = JobCatalog()\n"
    source += "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (tmp_path / "threaded.py").write_text(source)
    arguments = ("worker", "--check", "--app", "threaded:catalog")
    environment = {"RUNLEDGER_DATABASE_URL": shop_url}

    assert run_program(*arguments, directory=tmp_path, environment=environment).returncode == 0
    refused = run_program(*arguments, "--preload", directory=tmp_path, environment=environment)

    assert refused.returncode == 78
    assert b"starts threads when it is imported" in refused.stderr


def test_a_health_address_that_cannot_be_one_is_refused_before_anything_starts(shop_url: str) -> None:
    result = run_command("worker", "--app", APP, "--health-addr", "8177", url=shop_url)
    assert result.exit_code == 78
    assert result.stderr.startswith("Error: the health address must look like")
