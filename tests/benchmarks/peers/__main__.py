"""``make bench-peers``: every job system on one server, in turns, medians. Under twenty minutes."""

import argparse
import json
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.ground import durable_server
from benchmarks.peers import install, pages
from benchmarks.peers.measure import Figures, Sizes, measured_round
from benchmarks.peers.redis_server import running_redis
from benchmarks.peers.registry import PEERS, Peer
from benchmarks.report import machine_line

OUTPUT = install.ROOT / "build" / "bench-peers.json"


def main() -> None:
    options = _options()
    chosen = [peer for peer in PEERS if not options.only or peer.name in options.only.split(",")]
    failed: dict[str, str] = {}
    versions: dict[str, str] = {}
    rounds: dict[str, list[Figures]] = {peer.name: [] for peer in chosen}
    for peer in chosen:
        if (reason := install.ensure(peer)) is not None:
            failed[peer.name] = f"not installed: {reason}"
        else:
            versions[peer.name] = install.version(peer)
    sizes = Sizes(share=options.share, singles=options.singles, samples=options.samples, seconds=options.seconds)
    with ExitStack() as stack:
        server = stack.enter_context(durable_server())
        redis = stack.enter_context(running_redis())
        machine = machine_line(server)
        for turn in range(options.repeats):
            for peer in _rotated(chosen, turn):
                if peer.name in failed:
                    continue
                if peer.needs_redis and redis is None:
                    failed[peer.name] = "redis-server is not installed"
                    continue
                began = time.monotonic()
                try:
                    rounds[peer.name].append(measured_round(peer, server, redis, sizes))
                except (RuntimeError, OSError, ValueError, KeyError) as error:
                    failed[peer.name] = f"round {turn + 1}: {error}"
                _write(machine, turn + 1, versions, failed, rounds)
                print(
                    f"{turn + 1} {peer.name}: {time.monotonic() - began:.0f} s {failed.get(peer.name, '')}", flush=True
                )
    result = _write(machine, options.repeats, versions, failed, rounds)
    print(pages.table(result))
    if options.write_page:
        pages.write(result)


def _write(
    machine: str, repeats: int, versions: dict[str, str], failed: dict[str, str], rounds: dict[str, list[Figures]]
) -> dict[str, Any]:
    """What was measured so far is stored, so that a run which is broken off is not lost."""
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "repeats": repeats,
        "versions": versions,
        "failed": failed,
        "rounds": rounds,
    }
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return result


def _rotated(peers: list[Peer], turn: int) -> list[Peer]:
    return peers[turn % len(peers) :] + peers[: turn % len(peers)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("--only", default="", help="names, with commas between them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual number of jobs")
    parser.add_argument("--singles", type=int, default=400)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=8.0, help="longest time of one cell")
    parser.add_argument("--write-page", action="store_true", help="write docs/explanation/benchmarks.md anew")
    return parser.parse_args()


if __name__ == "__main__":
    main()
