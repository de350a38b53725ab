"""``make bench-check``: fails when the framework has fallen behind its floor, compared with the ratios that are stored.

Only ratios of runs that followed each other are compared, so a slow machine does not fail. What looks worse is measured
again, with all earlier runs kept, before it counts.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import drains, enqueues
from benchmarks.ground import durable_server, ledger_database
from benchmarks.report import Contest, machine_line

BASELINE = Path(__file__).with_name("baseline.json")
MARGINS = {"jobs/s": 0.35, "WAL B/job": 0.05}
"""How much worse a ratio may be before it fails. Bytes of WAL are exact; speed of two processes on two cores is not,
and the number of statements follows it, since outcomes are written by the clock."""

TRIES = 3

Ratios = dict[str, float]


@dataclass(frozen=True, slots=True)
class Regression:
    """A ratio that is worse than its baseline by more than its margin."""

    name: str
    baseline: float
    found: float

    def __str__(self) -> str:
        return f"{self.name}: {self.found:.2f} x floor, was {self.baseline:.2f}"


def ratios(contests: Iterable[Contest]) -> Ratios:
    """Contest, measure and contender → median of its ratios to the floor of the same turn."""
    found: Ratios = {}
    for contest in contests:
        floor, *others = contest.contenders
        for measure, figures in contest.figures.items():
            for name in others:
                pairs = zip(figures.get(name, []), figures.get(floor, []), strict=False)
                single = [mine / its for mine, its in pairs if its]
                if single:
                    found[f"{contest.name} | {measure} | {name}"] = statistics.median(single)
    return found


def regressions(found: Mapping[str, float], baseline: Mapping[str, float]) -> list[Regression]:
    """What is worse than its margin allows. A ratio without a baseline, or without a margin, is not judged."""
    worse = []
    for name, value in found.items():
        measure = name.split(" | ")[1]
        if name not in baseline or measure not in MARGINS:
            continue
        is_more_better = measure.endswith("/s")
        change = baseline[name] / value if is_more_better else value / baseline[name]
        if change > 1 + MARGINS[measure]:
            worse.append(Regression(name, baseline[name], value))
    return worse


def judge(contests: list[Contest], baseline: Mapping[str, float], repeats: int) -> list[Regression]:
    """Every contest ``repeats`` times; those with a regression as often again, up to three times in all."""
    suspects, turn = contests, 0
    for _ in range(TRIES):
        for _ in range(repeats):
            for contest in suspects:
                contest.run_once(turn)
            turn += 1
        found = regressions(ratios(contests), baseline)
        names = {regression.name.split(" | ")[0] for regression in found}
        suspects = [contest for contest in contests if contest.name in names]
        if not suspects:
            return []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.check", description=__doc__)
    parser.add_argument("--jobs", type=int, default=30_000, help="jobs of one drain")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="store the ratios found as the baseline")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(ledger_database(stack.enter_context(durable_server())))
        print(machine_line(url), flush=True)
        contests = [drains.Drain(url, options.jobs, *shape).contest() for shape in drains.SHAPES[1:]]
        contests += enqueues.contests(url)
        baseline = {} if options.write else json.loads(BASELINE.read_text())
        worse = judge(contests, baseline, options.repeats)
    found = ratios(contests)
    for name, value in found.items():
        print(f"{name:<70} {value:6.2f} x floor   baseline {baseline.get(name, value):6.2f}")
    if options.write:
        BASELINE.write_text(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=2) + "\n")
    for regression in worse:
        print(f"worse: {regression}", file=sys.stderr)
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
