"""The tutorial as a stranger follows it: the built wheel in a clean environment, its files, its commands."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runledger import Retention, Scope, prune_jobs
from runledger.testing import databases

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "how-to" / "flask.md").read_text()
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
BLOCKS = [block.splitlines() for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
PATIENCE_SECONDS = 120
POEM = "one two three four"


@pytest.fixture(scope="module")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment that has what the page installs, and nothing of the repository."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=PATIENCE_SECONDS)
    [wheel] = place.glob("*.whl")
    venv.create(place / "venv", with_pip=False)
    [install, _] = BLOCKS[0]
    arguments = install.replace("'", "").replace("runledger-pg", str(wheel)).removeprefix("python -m pip ").split()
    pip = [sys.executable, "-m", "pip", "--python", str(place / "venv" / "bin" / "python"), "--quiet"]
    subprocess.run([*pip, *arguments, "--no-compile"], check=True, timeout=PATIENCE_SECONDS, stdin=subprocess.DEVNULL)
    return place / "venv" / "bin"


@pytest.mark.process
def test_the_commands_of_the_page_do_what_it_says(clean_environment: Path, server_url: str, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    [_, prepare, [serve], [work], [upload]] = BLOCKS
    port = str(_free_port())
    with databases.ephemeral_database(server_url, prefix="flask_page") as url:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNLEDGER", "PYTHON"))}
        environment = kept | {"RUNLEDGER_DATABASE_URL": url, "PATH": f"{clean_environment}:{kept['PATH']}"}
        for command in prepare:
            subprocess.run(command.split(), cwd=tmp_path, env=environment, check=True, timeout=PATIENCE_SECONDS)
        with (
            running(serve.replace("5000", port), tmp_path, environment),
            running(work, tmp_path, environment),
        ):
            page = upload.split()[-1].replace("5000", port)
            answer = _until_answered(lambda: _post(page))
            show = answer.geturl()
            done = _until_answered(lambda: _done(show))
            assert done == {"name": "poem.txt", "words": 4, "job": "SUCCEEDED", "attempt": 1}
            with psycopg.connect(url) as connection:
                assert prune_jobs(connection, Retention(timedelta(0)), scope=Scope.any()).jobs == 1
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(show, timeout=10)


def test_the_page_shows_the_example() -> None:
    assert FILES["uploader.py"] == (ROOT / "docs" / "examples" / "flask_uploader" / "uploader.py").read_text()


def test_the_tests_of_the_page_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(**{name.removesuffix(".py"): text for name, text in FILES.items()})
    pytester.syspathinsert()

    pytester.runpytest_subprocess("-p", "runledger_pytest", timeout=PATIENCE_SECONDS).assert_outcomes(passed=1)


@contextmanager
def running(command: str, place: Path, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command.split(), cwd=place, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
        assert process.poll() is None, f"{command} has ended"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


def _post(page: str) -> Any:
    """What ``curl --form file=@poem.txt --location`` does."""
    lines = ["--x", 'Content-Disposition: form-data; name="file"; filename="poem.txt"', "", POEM, "--x--", ""]
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(page, "\r\n".join(lines).encode(), headers)
    return urllib.request.urlopen(request, timeout=10)


def _done(show: str) -> Any:
    with urllib.request.urlopen(show, timeout=10) as answer:
        found = json.load(answer)
    return found if found["job"] == "SUCCEEDED" else None


def _until_answered(ask: Any) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except urllib.error.HTTPError:
            raise
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("no answer in time")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
