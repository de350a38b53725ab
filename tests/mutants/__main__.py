"""``make mutants``: the tests tested. Each mutant takes one rule out of a copy of the source; the tests named beside it
must notice within their budget. Ends with status 0 when all were killed.

    python -m mutants [WORD ...]    only those whose names contain a word
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("runledger", "sql", "tests", "pyproject.toml", "README.md", "docs")
BUDGET_SECONDS = 180
KILLED, TIMED_OUT, SURVIVED, BROKEN = "killed", "timed out", "SURVIVED", "NOT PLANTED"
"""A mutant whose tests do not end within their budget was noticed too."""

TESTS_FAILED = 1


def main(words: list[str]) -> int:
    chosen = [one for one in MUTANTS if not words or any(word in one.name for word in words)]
    verdicts: list[tuple[Mutant, str, float]] = []
    with tempfile.TemporaryDirectory(prefix="rl-mutants-") as place:
        copy = Path(place)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        for mutant in chosen:
            began_at = time.monotonic()
            verdict = fate_of(mutant, copy)
            verdicts.append((mutant, verdict, time.monotonic() - began_at))
            print(f"{verdict:12} {verdicts[-1][2]:6.1f}s  {mutant.name}", flush=True)
    killed = [seconds for _, verdict, seconds in verdicts if verdict in (KILLED, TIMED_OUT)]
    median = sorted(killed)[len(killed) // 2] if killed else 0.0
    print(f"mutants killed {len(killed)}/{len(chosen)}, median {median:.1f} s")
    return 0 if len(killed) == len(chosen) else 1


def fate_of(mutant: Mutant, copy: Path) -> str:
    path = copy / mutant.file
    original = path.read_text()
    if mutant.old not in original:
        return BROKEN
    path.write_text(original.replace(mutant.old, mutant.new))
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{copy / 'tests'}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=BUDGET_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return TIMED_OUT
    finally:
        path.write_text(original)
    return KILLED if done.returncode == TESTS_FAILED else SURVIVED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
