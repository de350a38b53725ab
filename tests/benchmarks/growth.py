"""``make bench-growth``: what a job costs as things grow, one curve for each thing, as SVG and JSON.

Server CPU per job decides here, since it is steadier than speed on a shared machine; the speed is kept beside it.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from benchmarks import framework, ground
from benchmarks.app import JOB_TYPE, PAYLOAD
from benchmarks.peers import processes
from benchmarks.peers.install import ROOT
from benchmarks.report import machine_line
from runledger import JobCatalog, JobRequest, enqueue_jobs, enqueue_workflow_run
from runledger.database.database import SESSION_SETTINGS
from runledger.postgres.claim import claim_jobs

OUTPUT = ROOT / "build" / "bench-growth.json"
IMAGES = ROOT / "docs" / "explanation" / "img"
JOBS = 10_000
CLAIMS = 30
SERVER = "server µs/job"
BATCH = 100

FINISH = """
UPDATE runledger.job_queue SET final_status = 'SUCCEEDED', finished_at = now(), attempt = 1 WHERE final_status IS NULL
"""
ATTEMPTS = """
INSERT INTO runledger.job_attempts
    (job_id, lease_token, run_number, attempt, leased_at, started_at, finished_at, outcome, worker_id)
SELECT id, nextval('runledger.lease_token'), 1, 1, created_at, created_at, now(), 'SUCCEEDED', 'bench'
FROM runledger.job_queue
"""
SPREAD = """
UPDATE runledger.job_ready SET job_type = 'bench.' || (abs(hashtext(job_id::text)) %% %s)
"""

Point = dict[str, float]
Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Curve:
    """Sizes along the bottom, and how one point is measured."""

    name: str
    title: str
    bottom: str
    measure: str
    sizes: Sequence[int]
    point: Callable[[str, int], Point]


def waiting_jobs(url: str, count: int) -> Point:
    """Claims of 100 behind ``count`` due jobs of one type."""
    ground.fill(url, count)
    return _claims(url, [JOB_TYPE])


def finished_jobs(url: str, count: int) -> Point:
    """A drain beside ``count`` jobs that ended earlier, with their attempts."""
    ground.fill(url, count)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE runledger.job_ready")
        connection.execute(FINISH)
        connection.execute(ATTEMPTS)
        connection.execute("VACUUM ANALYZE runledger.job_queue, runledger.job_attempts")
        connection.execute(ground.FILL, (JOB_TYPE, Jsonb(PAYLOAD), JOBS))
    return _drained(url, JOBS, workers=2)


def job_types(url: str, count: int) -> Point:
    """Claims of 100 of a worker that serves ``count`` types, all of which have jobs."""
    ground.fill(url, max(JOBS, count * 20))
    names = [f"bench.{number}" for number in range(count)]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO runledger.job_definitions (job_type) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING",
            (names,),
        )
        connection.execute(SPREAD, (count,))
        connection.execute("VACUUM ANALYZE runledger.job_ready")
    return _claims(url, names)


def workers(url: str, count: int) -> Point:
    """A drain by ``count`` worker processes."""
    ground.fill(url, JOBS * 2)
    return _drained(url, JOBS * 2, workers=count)


def payload_bytes(url: str, count: int) -> Point:
    """Enqueue and drain of jobs that carry ``count`` bytes."""
    jobs = max(200, min(JOBS, 50_000_000 // count))
    ground.fill(url, 0)
    with psycopg.connect(url, autocommit=True) as connection:
        requests = [JobRequest(JOB_TYPE, {"data": "x" * count}) for _ in range(jobs)]
        began = time.monotonic()
        for start in range(0, jobs, 1_000):
            with connection.transaction():
                enqueue_jobs(connection, requests[start : start + 1_000])
        seconds = time.monotonic() - began
    return _drained(url, jobs, workers=2) | {"enqueue µs/job": seconds / jobs * 1e6}


def fan_out(url: str, count: int) -> Point:
    """Workflow runs of one step, ``count`` that follow it, and one after all of them; cost per step."""
    ground.fill(url, 0)
    runs = max(1, 1_000 // count)
    catalog = JobCatalog()
    catalog.job(JOB_TYPE)(lambda context, payload: None)
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(runs):
            builder = catalog.workflow("bench.fan").job("first", JOB_TYPE).job("last", JOB_TYPE)
            for number in range(count):
                builder.job(str(number), JOB_TYPE).after_success(str(number), ["first"])
            builder.after_success("last", [str(number) for number in range(count)])
            with connection.transaction():
                enqueue_workflow_run(connection, builder.build())
    return _drained(url, runs * (count + 2), workers=2)


def curves(largest_backlog: int, largest_history: int) -> list[Curve]:
    """All of them, with sizes up to what was asked for."""
    decades = [10**power for power in range(3, 8)]
    return [
        Curve("waiting", "of claims", "jobs waiting", SERVER, _up_to(decades, largest_backlog), waiting_jobs),
        Curve("finished", "drained", "jobs finished", SERVER, _up_to(decades, largest_history), finished_jobs),
        Curve("types", "of claims", "job types of the worker", SERVER, (1, 5, 20, 100, 500), job_types),
        Curve("workers", "drained", "worker processes", SERVER, (1, 2, 4, 8, 16), workers),
        Curve("payload", "drained", "bytes of payload", SERVER, (100, 1_000, 10_000, 100_000), payload_bytes),
        Curve("fan-out", "of a workflow", "steps side by side", SERVER, (1, 10, 100, 1_000, 9_998), fan_out),
    ]


def _up_to(sizes: Sequence[int], largest: int) -> list[int]:
    return [*(size for size in sizes if size < largest), largest]


def _claims(url: str, names: list[str]) -> Point:
    """Milliseconds of a claim of 100, the slowest of the quickest quarter, and server CPU for each of its jobs."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        server = [processes.parents_of(connection.info.backend_pid)[0]]
        connection.execute(SESSION_SETTINGS, prepare=False)
        took, claimed, cpu = [], 0, 0.0
        for turn in range(CLAIMS):
            if turn == 5:
                claimed, cpu = 0, processes.cpu_seconds(server)
            began = time.monotonic()
            claimed += len(
                claim_jobs(connection, worker_id="bench", job_types=names, limit=BATCH, lease_ttl_seconds=600)
            )
            took.append(time.monotonic() - began)
        cpu = processes.cpu_seconds(server) - cpu
    took = sorted(took[5:])
    return {"claim ms": took[len(took) // 4] * 1e3, "server µs/job": cpu / max(1, claimed) * 1e6}


def _drained(url: str, jobs: int, *, workers: int) -> Point:
    with psycopg.connect(url, autocommit=True) as connection:
        server = processes.parents_of(connection.info.backend_pid)
        connection.execute("CHECKPOINT")
        cpu = processes.cpu_seconds(server)
    seconds = framework.drain(url, processes=workers, batch=500)
    return {"jobs/s": jobs / seconds, "server µs/job": (processes.cpu_seconds(server) - cpu) / jobs * 1e6}


def draw(name: str, title: str, bottom: str, measure: str, points: dict[int, Point]) -> None:
    """One SVG below docs/explanation/img; the same figures give the same file."""
    import matplotlib  # only here, so that measuring needs no more than the rest
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = name
    figure = Figure(figsize=(5, 2.6))
    axes = figure.subplots()
    axes.plot(list(points), [point[measure] for point in points.values()], marker="o")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(bottom)
    axes.set_ylabel(measure)
    axes.set_title(f"{measure} {title}", fontsize=10)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})


def measured(curve: Curve, server: str) -> Iterator[tuple[int, Point]]:
    """Every point in a database of its own."""
    for size in curve.sizes:
        with ground.ledger_database(server) as url:
            yield size, curve.point(url, size)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__)
    parser.add_argument("--backlog", type=int, default=1_000_000, help="most waiting jobs")
    parser.add_argument("--history", type=int, default=1_000_000, help="most finished jobs")
    parser.add_argument("--only", default="", help="curves, with commas between them")
    parser.add_argument("--no-plots", action="store_true")
    options = parser.parse_args()
    found: dict[str, dict[int, Point]] = {}
    with ground.durable_server() as server:
        print(machine := machine_line(server), flush=True)
        for curve in curves(options.backlog, options.history):
            if options.only and curve.name not in options.only.split(","):
                continue
            found[curve.name] = {}
            for size, point in measured(curve, server):
                found[curve.name][size] = point
                shown = ", ".join(f"{name} {value:,.4g}" for name, value in point.items())
                print(f"{curve.name:<10} {size:>10,}  {shown}", flush=True)
            if not options.no_plots:
                draw(curve.name, curve.title, curve.bottom, curve.measure, found[curve.name])
            OUTPUT.parent.mkdir(exist_ok=True)
            OUTPUT.write_text(json.dumps({"machine": machine, "curves": found}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
