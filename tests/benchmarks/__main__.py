"""``make bench``: every figure beside its floor, in one run, on a durable server of its own. Under five minutes."""

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import drains, enqueues, framework, idle, limits, retention, sleepers, workflows
from benchmarks.ground import durable_server, ledger_database
from benchmarks.report import Contest, machine_line, print_table, write_json

OUTPUT = Path(__file__).resolve().parents[2] / "build" / "bench.json"


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        url = stack.enter_context(ledger_database(stack.enter_context(durable_server())))
        machine = machine_line(url)
        print(machine, flush=True)
        contests = [
            *(drains.Drain(url, options.jobs, *shape).contest() for shape in drains.SHAPES),
            limits.contest(url),
            sleepers.contest(url),
            *enqueues.contests(url),
            *workflows.contests(url),
            retention.contest(url),
            Contest("idle pick-up", {"runledger worker": partial(framework.pick_up, url, options.latency_samples)}),
        ]
        for turn in range(options.repeats):
            for contest in contests:
                contest.run_once(turn)
        for contest in (costs := idle.contests(url)):
            contest.run_once(0)
        contests += costs
    print_table(contests)
    write_json(OUTPUT, machine, contests)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs of one drain")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--latency-samples", type=int, default=50, help="jobs on an idle queue in each repeat")
    return parser.parse_args()


if __name__ == "__main__":
    main()
