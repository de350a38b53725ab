"""For tests of Runledger and of applications that use it: servers, databases and environments that clean up; due jobs
run inline, handlers run alone, time passes, workers crash. The fixtures are in ``runledger_pytest``."""

from runledger.testing.assertions import assert_enqueued
from runledger.testing.databases import (
    directory_checksum,
    drop_abandoned_databases,
    ephemeral_database,
    migrated_template,
)
from runledger.testing.draining import Drained, Ran, drain
from runledger.testing.environment import scoped_environment
from runledger.testing.faults import CrashPoint, Fault, crash_after_claim, crash_before_settle
from runledger.testing.handler_runs import HandlerRun, run_job
from runledger.testing.ledger import LedgerForTests
from runledger.testing.server_choice import NoTestDatabase, test_server
from runledger.testing.travel import travel

__all__ = [
    "LedgerForTests",
    "drain",
    "Drained",
    "Ran",
    "run_job",
    "HandlerRun",
    "assert_enqueued",
    "travel",
    "crash_after_claim",
    "crash_before_settle",
    "Fault",
    "CrashPoint",
    "test_server",
    "ephemeral_database",
    "migrated_template",
    "directory_checksum",
    "drop_abandoned_databases",
    "scoped_environment",
    "NoTestDatabase",
]
