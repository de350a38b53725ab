"""The page as a reader follows it: the example, the commands, an order in a browser, a worker beside it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from runledger import Retention, Scope, prune_jobs

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs" / "examples" / "django_shop"
PAGE = (ROOT / "docs" / "how-to" / "django.md").read_text()
FILES = dict(re.findall(r"^```python\n# ([\w/]+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
PIECES = re.findall(r"^```python\n(?!# [\w/]+\.py\n)(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [block.splitlines() for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
PATIENCE_SECONDS = 120


class Reader:
    """Somebody with the project in a folder, a terminal, and a browser that keeps its cookies."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNLEDGER", "PG", "DJANGO"))}
        self.environment = kept | environment_of(url) | {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}"}

    def export(self, line: str) -> None:
        """``export NAME=VALUE …``; the database stays that of the test."""
        for name, _, value in (word.partition("=") for word in line.removeprefix("export ").split()):
            self.environment.setdefault(name, value)

    def run(self, *command: str) -> None:
        subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=PATIENCE_SECONDS,
        )

    @contextmanager
    def running(self, command: str) -> Iterator[None]:
        """The command runs until the block ends, and was still running then."""
        with (self.folder / "process.log").open("ab") as log:
            process = subprocess.Popen(
                command.split(), cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield
            assert process.poll() is None, f"{command} has ended: {(self.folder / 'process.log').read_text()}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)

    def see(self, address: str) -> str:
        with self.browser.open(address, timeout=10) as answer:
            return str(answer.read().decode())

    def order(self, address: str, seat: int) -> tuple[str, str]:
        """The address and the text where the form leads to."""
        [token] = TOKEN.findall(self.see(address))
        form = urllib.parse.urlencode({"seat": seat, "csrfmiddlewaretoken": token}).encode()
        with self.browser.open(address, form, timeout=10) as answer:
            return answer.geturl(), answer.read().decode()

    def jobs(self) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            return connection.execute("SELECT job_type, status FROM runledger.jobs ORDER BY id").fetchall()


@pytest.fixture
def reader(empty_url: str, tmp_path: Path) -> Reader:
    shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    return Reader(tmp_path / "project", empty_url)


@pytest.mark.process
def test_an_order_is_paid_by_a_worker_and_a_refused_one_leaves_no_job(reader: Reader) -> None:
    [_, _, [export], prepare, [serve], [work]] = COMMANDS
    port = str(free_port())
    site = f"http://127.0.0.1:{port}/"
    reader.export(export)
    for command in prepare:
        reader.run(*command.split())
    with reader.running(f"{serve.replace('8000', port)} --noreload"):
        until(lambda: "Seats" in reader.see(site))
        shown, _ = reader.order(site, 7)
        place, refused = reader.order(site, 7)
        assert "This seat is taken." in refused
        assert place == site
        assert reader.jobs() == [("shop.charge", "PENDING")]
        assert "seat 7: to be paid" in reader.see(site)
        with reader.running(f"{work} --poll-interval 50ms"):
            until(lambda: '"SUCCEEDED"' in reader.see(shown))
        assert reader.see(shown) == '{"seat": 7, "paid": true, "job": "SUCCEEDED", "attempt": 1}'
        assert "seat 7: paid" in reader.see(site)
        with psycopg.connect(reader.url) as connection:
            assert prune_jobs(connection, Retention(timedelta(0)), scope=Scope.any()).jobs == 1
        with pytest.raises(urllib.error.HTTPError, match="404"):
            reader.see(shown)


@pytest.mark.process
def test_the_embedded_server_of_the_page_takes_the_project(reader: Reader, tmp_path: Path) -> None:
    [_, embedded, [export], [migrate, _], *_] = COMMANDS
    kept = {name: value for name, value in reader.environment.items() if not name.startswith("PG")}
    reader.environment = kept | {"RUNLEDGER_HOME": str(tmp_path / "home")}
    try:
        reader.run("bash", "-e", "-c", "\n".join([*embedded, export, migrate, "python manage.py migrate --check"]))
    finally:
        reader.run("runledger", "db", "stop")


def test_the_other_code_of_the_page_runs_in_the_project(reader: Reader) -> None:
    [_, _, [export], [migrate, check], *_] = COMMANDS
    [cancel, tasks] = PIECES
    reader.export(export)
    reader.run(*migrate.split())
    (reader.folder / "cancel.py").write_text(f"import django\ndjango.setup()\n{cancel}")
    (reader.folder / "with_tasks.py").write_text(f"from settings import *\n{tasks}")

    reader.environment["DJANGO_SETTINGS_MODULE"] = "settings"
    reader.run("python", "cancel.py")
    reader.run(*check.split(), "--settings", "with_tasks")

    assert reader.jobs() == [("shop.charge", "CANCELED")]


def test_migrations_of_the_example_are_those_of_its_models(reader: Reader) -> None:
    reader.export(COMMANDS[2][0])
    reader.run("python", "manage.py", "makemigrations", "--check", "--dry-run")


def test_the_page_shows_the_example() -> None:
    assert set(FILES) == {"settings.py", "shop/jobs.py", "shop/models.py", "shop/views.py"}
    for name, text in FILES.items():
        assert text == (EXAMPLE / name).read_text(), name


def environment_of(url: str) -> dict[str, str]:
    """The variables of libpq that lead to the database."""
    names = {"dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD", "host": "PGHOST", "port": "PGPORT"}
    parts = conninfo_to_dict(url)
    return {variable: str(parts[part]) for part, variable in names.items() if parts.get(part)}


def until(ask: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if ask():
                return
        except urllib.error.HTTPError:
            raise
        except OSError:  # it does not listen yet
            pass
        time.sleep(0.1)
    raise AssertionError("not in time")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
