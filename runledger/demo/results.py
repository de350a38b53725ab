"""The application's own table: what a job found, written in the transaction that completes the job.

Nothing in the table keeps a row from being written twice; that no row is, is what the demonstration shows.
"""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from runledger.demo.extraction import FileFacts

CREATE_TABLE = """
CREATE TABLE demo_files (
    path text NOT NULL,
    sha256 text NOT NULL,
    words integer NOT NULL,
    top_words jsonb NOT NULL,
    headings jsonb NOT NULL,
    links jsonb NOT NULL,
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
INSERT_ROW = """
INSERT INTO demo_files (path, sha256, words, top_words, headings, links, job_id, attempt)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
SELECT_ROWS = """
SELECT path, job_id, attempt, sha256, words, top_words::text, headings::text, links::text
FROM demo_files
ORDER BY path, written_at
"""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One row of ``demo_files``: which attempt of which job found what in a file."""

    path: str
    job_id: UUID
    attempt: int
    facts: FileFacts


def create_table(connection: psycopg.Connection[Any]) -> None:
    """The empty table exists when the caller's transaction commits."""
    connection.execute(CREATE_TABLE)


def write_row(connection: psycopg.Connection[Any], row: ResultRow) -> None:
    """The row is there when the caller's transaction commits."""
    facts = row.facts
    lists = [json.dumps(value) for value in (facts.top_words, facts.headings, facts.links)]
    connection.execute(INSERT_ROW, (row.path, facts.sha256, facts.words, *lists, row.job_id, row.attempt))


def read_rows(connection: psycopg.Connection[Any]) -> tuple[ResultRow, ...]:
    """Every row, by path."""
    return tuple(
        ResultRow(path, job_id, attempt, _facts(sha256, words, *lists))
        for path, job_id, attempt, sha256, words, *lists in connection.execute(SELECT_ROWS)
    )


def _facts(sha256: str, words: int, top_words: str, headings: str, links: str) -> FileFacts:
    ranked = tuple((word, count) for word, count in json.loads(top_words))
    return FileFacts(sha256, words, ranked, tuple(json.loads(headings)), tuple(json.loads(links)))
