"""Which peers there are, how each is installed, how large its cells are, and what it does and does not keep."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Peer:
    """One contender. ``unfinished`` counts, in its own tables, what has not ended yet; None where there are none."""

    name: str
    package: str
    keeps: str
    lacks: str
    jobs: int
    """Jobs of one drain; a cell that takes too long ends early and says how many it did."""
    install: tuple[str, ...] = ()
    script: str = ""
    unfinished: str | None = None
    concurrency: int = 1
    """Jobs at once in each of the two processes, for jobs that do nothing."""
    slow_processes: int = 2
    slow_concurrency: int = 8
    """Processes, and jobs at once in each, for jobs of 1 ms: sixteen at once for everybody."""
    processes: int = 2
    has_chains: bool = False
    needs_redis: bool = False
    is_node: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return self.script or f"{self.name.replace('-', '_')}.{'js' if self.is_node else 'py'}"


OURS = Peer(
    "runledger",
    "runledger-pg",
    "record, a row for each attempt with times, cost and outcome",
    "",
    jobs=120_000,
    unfinished="SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL",
    processes=1,
    concurrency=2,
    slow_processes=1,
    slow_concurrency=16,
    has_chains=True,
)

PEERS = (
    OURS,
    Peer(
        "graphile-worker",
        "graphile-worker",
        "nothing: a job is deleted when it ends",
        "history, rows for attempts, a fence against late workers",
        jobs=120_000,
        install=("graphile-worker", "pg"),
        unfinished="SELECT count(*) FROM graphile_worker.jobs",
        concurrency=24,
        is_node=True,
    ),
    Peer(
        "pg-boss",
        "pg-boss",
        "the row of a job, archived later",
        "rows for attempts, fence; one failure fails all 10,000 jobs of a call",
        jobs=120_000,
        install=("pg-boss",),
        unfinished="SELECT count(*) FROM pgboss.job WHERE name = 'nothing' AND state < 'completed'",
        concurrency=10_000,
        is_node=True,
    ),
    Peer(
        "pgqueuer",
        "pgqueuer",
        "a log row; the job itself is deleted",
        "rows for attempts, fence, killing a handler; handlers are coroutines",
        jobs=120_000,
        install=("pgqueuer[asyncpg]", "uvloop"),
        unfinished="SELECT count(*) FROM pgqueuer",
        concurrency=2_000,
    ),
    Peer(
        "oban",
        "oban",
        "the row of a job until it is pruned, errors inside it",
        "rows for attempts, fence, killing a handler; handlers are coroutines",
        jobs=15_000,
        install=("oban", "uvloop"),
        unfinished="SELECT count(*) FROM oban_jobs WHERE state <> 'completed'",
        concurrency=100,
    ),
    Peer(
        "procrastinate",
        "procrastinate",
        "the row of a job, and a row for each change of status",
        "fence, killing a handler; handlers are coroutines",
        jobs=5_000,
        install=("procrastinate", "psycopg[binary]", "uvloop"),
        unfinished="SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
        concurrency=30,
    ),
    Peer(
        "dbos",
        "dbos",
        "a row for each workflow and each step",
        "rows for attempts, fence, killing a handler",
        jobs=5_000,
        install=("dbos",),
        unfinished="SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING')",
        concurrency=50,
        has_chains=True,
    ),
    Peer(
        "absurd",
        "absurd-sdk",
        "rows for task, run and checkpoints",
        "wake-ups, killing a handler",
        jobs=5_000,
        install=("absurd-sdk", "absurdctl"),
        unfinished="SELECT count(*) FROM absurd.t_bench WHERE state NOT IN ('completed', 'failed', 'cancelled')",
        has_chains=True,
    ),
    Peer(
        "dramatiq",
        "dramatiq",
        "nothing",
        "history, attempts, fence, commit together with your rows, durability of the last second",
        jobs=15_000,
        install=("dramatiq[redis]",),
        processes=1,
        slow_processes=1,
        needs_redis=True,
    ),
    Peer(
        "celery",
        "celery",
        "nothing",
        "history, attempts, fence, commit together with your rows, durability of the last second; acknowledges early",
        jobs=8_000,
        install=("celery[redis]",),
        processes=1,
        concurrency=2,
        slow_processes=1,
        slow_concurrency=16,
        has_chains=True,
        needs_redis=True,
    ),
    Peer(
        "rq",
        "rq",
        "nothing (a result for some minutes, if asked)",
        "history, attempts, fence, commit together with your rows, durability of the last second",
        jobs=3_000,
        install=("rq",),
        slow_processes=16,
        slow_concurrency=1,
        needs_redis=True,
    ),
)
