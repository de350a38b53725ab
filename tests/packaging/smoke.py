"""Whether the built packages hold what they must, and the wheel works where nothing of the repository is.

``python tests/packaging/smoke.py DIST``: looks into wheel and sdist, installs the wheel into a clean environment, and
uses it from another directory: version, an embedded database, migrations, a worker of an installed application for
which another process enqueues, the demonstration.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 300

APPLICATION = """
from runledger import JobCatalog, JobFailure

catalog = JobCatalog()


@catalog.job("consumer.double")
def double(context, payload):
    if payload["number"] < 0:
        raise JobFailure.terminal("consumer.refused", "no negative numbers")
    return {"doubled": 2 * payload["number"]}
"""

PRODUCER = """
import sys

import psycopg
from consumer_jobs import catalog, double

from runledger import enqueue_jobs

with psycopg.connect(sys.argv[1]) as connection:
    for job in enqueue_jobs(connection, [catalog.request(double, {"number": number}) for number in (21, -1)]):
        print(job.job_id)
"""


def main(dist: Path) -> None:
    """Returns when everything is as it should be. Raises AssertionError or CalledProcessError."""
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    check_contents(wheel, sdist)
    with tempfile.TemporaryDirectory(prefix="runledger-smoke-") as directory:
        place = Path(directory)
        use(install(wheel, place / "venv"), place)
    print(f"{wheel.name} and {sdist.name} are complete, and the wheel works")


def check_contents(wheel: Path, sdist: Path) -> None:
    """Every migration and the type marker are in the wheel, and what the tests need is in the sdist."""
    migrations = {path.name for path in (REPOSITORY / "sql").glob("*.sql")}
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert migrations, "there are no migrations"
    assert {f"runledger/sql/{name}" for name in migrations} | {"runledger/py.typed"} <= in_wheel
    assert {f"sql/{name}" for name in migrations} | {"Makefile", "README.md", "tests/conftest.py"} <= in_sdist
    assert not [name for name in in_wheel if name.startswith(("tests/", "docs/"))], (
        "the wheel holds more than it should"
    )


def install(wheel: Path, environment: Path) -> Path:
    """A clean environment with the wheel and its embedded database; answers with the command."""
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    call([python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[embedded]"], environment.parent)
    return environment / "bin" / "runledger"


def use(runledger: Path, place: Path) -> None:
    """The commands do what they say, away from the repository."""
    (place / "input").mkdir()
    (place / "input" / "note.md").write_text("# A note\n\nwith a few words\n")
    assert call([runledger, "version"], place).strip(), "no version"
    url = call([runledger, "db", "start"], place).strip()
    try:
        call([runledger, "migrate", "--database-url", url], place)
        call([runledger, "migrate", "--check", "--database-url", url], place)
        run_an_installed_application(runledger, place, url)
    finally:
        call([runledger, "db", "stop"], place)
    call([runledger, "demo", "input"], place)


def run_an_installed_application(runledger: Path, place: Path, url: str) -> None:
    """A program enqueues, and a worker in another process brings one job to success and one to the dead letters."""
    python = runledger.parent / "python"
    library = Path(call([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], place).strip())
    (library / "consumer_jobs.py").write_text(APPLICATION)
    (place / "producer.py").write_text(PRODUCER)
    with_database = ["--database-url", url]
    call([runledger, "definition", "sync", "--app", "consumer_jobs:catalog", *with_database], place)
    succeeded, dead = call([python, "producer.py", url], place).split()
    call([runledger, "worker", "--app", "consumer_jobs:catalog", "--drain", *with_database], place)
    ended = [
        json.loads(call([runledger, "job", "show", job_id, "--json", *with_database], place))
        for job_id in (succeeded, dead)
    ]
    assert [job["status"] for job in ended] == ["SUCCEEDED", "DEAD_LETTERED"], ended
    assert ended[0]["output"] == {"doubled": 42}, ended[0]
    assert ended[1]["last_error_code"] == "consumer.refused", ended[1]


def call(command: list[Path | str], place: Path) -> str:
    """What the command printed. Raises CalledProcessError when it failed, after showing what it complained of."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RUNLEDGER", "PYTHON"))}
    ended = subprocess.run(
        command,
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    if ended.returncode:
        print(ended.stderr, file=sys.stderr)
        ended.check_returncode()
    return ended.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
