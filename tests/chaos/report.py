"""What a soak did and what it found, in one line."""

import collections
import statistics
from dataclasses import dataclass, field

import psycopg
from chaos.invariants import RULES
from chaos.nemesis import Action, Kind

COUNTS = """
    SELECT count(*), count(*) FILTER (WHERE final_status = 'SUCCEEDED'),
           count(*) FILTER (WHERE final_status = 'DEAD_LETTERED'), count(*) FILTER (WHERE final_status = 'CANCELED')
    FROM runledger.job_queue
"""
NAMED_APART = (Kind.KILL, Kind.FAILOVER, Kind.POOLER)
RERUNS = """
    SELECT count(*) FROM runledger.job_attempts
    WHERE outcome IN ('PANICKED', 'LEASE_EXPIRED', 'TIMEOUT') OR error_code = 'job.outcome_lost'
"""
RUNS = "SELECT count(*), (SELECT count(*) FROM runledger.workflow_steps) FROM runledger.workflow_runs"
FIRINGS = "SELECT count(*) FROM runledger.job_queue WHERE schedule_id IS NOT NULL"


@dataclass(slots=True)
class Report:
    """``violations`` is empty when all is well."""

    seed: int
    actions: list[Action]
    jobs: int = 0
    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    reruns: int = 0
    runs: int = 0
    steps: int = 0
    firings: int = 0
    unknown_commits: int = 0
    applied_unknowns: int = 0
    snapshots: int = 0
    pooler_restarts: int | None = None
    """None where there was no pooler."""
    seconds: float = 0.0
    drain_seconds: float = 0.0
    promotion_seconds: list[float] = field(default_factory=list)
    sync_seconds: list[float] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def count(self, connection: psycopg.Connection[tuple[int, ...]]) -> None:
        """The figures that the database tells."""
        self.jobs, self.succeeded, self.dead, self.cancelled = _row(connection, COUNTS)
        [self.reruns] = _row(connection, RERUNS)
        self.runs, self.steps = _row(connection, RUNS)
        [self.firings] = _row(connection, FIRINGS)

    def line(self) -> str:
        kills = collections.Counter(one.role.value for one in self.actions if one.kind is Kind.KILL and one.role)
        kinds = collections.Counter(one.kind for one in self.actions)
        faults = collections.Counter(one.what.lower() for one in self.actions if one.kind is Kind.NETWORK)
        others = " ".join(f"{kind.value.lower()}={kinds[kind]}" for kind in Kind if kind not in NAMED_APART)
        return (
            f"soak seed={self.seed} jobs={self.jobs} (succeeded {self.succeeded}, dead {self.dead},"
            f" cancelled {self.cancelled}) runs={self.runs} steps={self.steps} firings={self.firings}"
            f" kills={kills.total()} ({_listed(kills)}) {others} faults=({_listed(faults)})"
            f" failovers={kinds[Kind.FAILOVER]} ({self._failovers()}) {self._pooler()}"
            f" unknown_commits={self.unknown_commits} (batches applied {self.applied_unknowns}) reruns={self.reruns}"
            f" recovery={self._recovery()} drained_in={self.drain_seconds:.1f}s took={self.seconds:.0f}s"
            f" rules={len(RULES)} snapshots={self.snapshots} violations={len(self.violations)}"
        )

    def _failovers(self) -> str:
        if not self.promotion_seconds or not self.sync_seconds:
            return "none"
        promotion, sync = statistics.median(self.promotion_seconds), statistics.median(self.sync_seconds)
        return (
            f"a primary again p50 {promotion:.2f}s max {max(self.promotion_seconds):.2f}s,"
            f" a standby again p50 {sync:.2f}s max {max(self.sync_seconds):.2f}s"
        )

    def _pooler(self) -> str:
        if self.pooler_restarts is None:
            return "pooler: none"
        return f"pooler: {self.pooler_restarts} restarts"

    def _recovery(self) -> str:
        if len(self.recovery_seconds) < 2:
            return "none"
        cuts = statistics.quantiles(self.recovery_seconds, n=100, method="inclusive")
        return f"p50 {cuts[49]:.2f}s p99 {cuts[98]:.2f}s max {max(self.recovery_seconds):.2f}s"


def _row(connection: psycopg.Connection[tuple[int, ...]], query: str) -> tuple[int, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def _listed(counter: collections.Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))
