"""One table for people, one JSON file for the next run, and the line that says what machine it was."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

MACHINE = """
SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit'),
    current_setting('full_page_writes'), current_setting('shared_buffers')
"""

Run = Callable[[], Mapping[str, float]]
"""One run of a contender; the answer is its figures by measure, such as ``jobs/s``."""


@dataclass(slots=True)
class Contest:
    """Contenders for the same figures. The first is the floor that the others are compared with."""

    name: str
    contenders: Mapping[str, Run]
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def run_once(self, turn: int) -> None:
        """Every contender once; each turn begins with another, so that none always follows the same one."""
        names = list(self.contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for measure, figure in self.contenders[name]().items():
                self.figures.setdefault(measure, {}).setdefault(name, []).append(figure)

    def medians(self, measure: str) -> dict[str, float]:
        found = self.figures[measure]
        return {name: statistics.median(found[name]) for name in self.contenders if name in found}


def machine_line(url: str) -> str:
    """Versions, durability, processors and load, without which no figure means anything."""
    with psycopg.connect(url) as connection:
        row = connection.execute(MACHINE).fetchone()
    assert row is not None
    return (
        f"PostgreSQL {row[0]} (fsync {row[1]}, synchronous_commit {row[2]}, full_page_writes {row[3]}, shared_buffers "
        f"{row[4]}), Python {platform.python_version()}, psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )


def print_table(contests: list[Contest]) -> None:
    print(f"{'what':<32} {'measure':<15} {'who':<26} {'median':>11} {'ratio':>6}   range")
    for contest in contests:
        for measure in contest.figures:
            _print_rows(contest, measure)


def _print_rows(contest: Contest, measure: str) -> None:
    medians = contest.medians(measure)
    floor = next(iter(medians.values()))
    for name, value in medians.items():
        figures = contest.figures[measure][name]
        ratio = f"{value / floor:.2f}" if floor else "-"
        print(
            f"{contest.name:<32} {measure:<15} {name:<26} {value:>11,.4g} {ratio:>6}   "
            f"{min(figures):,.4g} to {max(figures):,.4g}"
        )


def write_json(path: Path, machine: str, contests: list[Contest]) -> None:
    """``path`` holds the machine and every single figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {contest.name: contest.figures for contest in contests}
    path.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
