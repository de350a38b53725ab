"""``make bench-peers-install``: every peer in an environment of its own below ``.venv-peers``, newest versions.

A peer that cannot be installed keeps the reason in ``<name>.failed``; the benchmark prints it in its table.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.registry import OURS, PEERS, Peer

ROOT = Path(__file__).resolve().parents[3]
HOME = ROOT / ".venv-peers"
INSTALL_SECONDS = 300

_ALIAS = "type Result[T] ="
_OLD_ALIAS = """from typing import Any as _Any, TypeVar as _TypeVar, Union as _Union
_T = _TypeVar("_T")
Result = _Union[Cancel, Snooze, Record, _T, None]
"""
_ADAPTED = "needs Python 3.12; on {version} with its one type alias written in the older form"


def ensure(peer: Peer) -> str | None:
    """The peer is installed, or the answer says why it is not."""
    if peer is OURS:
        return None
    place, failed = HOME / peer.name, HOME / f"{peer.name}.failed"
    if (HOME / f"{peer.name}.installed").exists():
        return None
    failed.unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    reason = _install_node(peer, place) if peer.is_node else _install_python(peer, place)
    if reason is None:
        (HOME / f"{peer.name}.installed").touch()
    else:
        failed.write_text(reason)
    return reason


def command(peer: Peer) -> list[str]:
    """How an action of the peer's adapter is started."""
    script = str(Path(__file__).with_name(peer.file))
    if peer.is_node:
        return ["node", script]
    python = sys.executable if peer is OURS else str(HOME / peer.name / "bin" / "python")
    return [python, "-P", script]


def version(peer: Peer) -> str:
    """The installed version of the peer's package, with what was changed to run it here."""
    if peer.is_node:
        found = HOME / peer.name / "node_modules" / peer.package / "package.json"
        return str(json.loads(found.read_text())["version"])
    code = f"import importlib.metadata as m; print(m.version({peer.package!r}))"
    answer = subprocess.run([command(peer)[0], "-c", code], capture_output=True, text=True, check=True)
    note = HOME / f"{peer.name}.note"
    return answer.stdout.strip() + (f" ({note.read_text()})" if note.exists() else "")


def _install_python(peer: Peer, place: Path) -> str | None:
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet"]
    reason = _run([sys.executable, "-m", "venv", str(place)]) or _run([*pip, *peer.install])
    if reason is not None and peer.name == "oban" and sys.version_info < (3, 12):
        reason = _run([*pip, "--ignore-requires-python", *peer.install]) or _adapt_oban(place)
    return reason


def _adapt_oban(place: Path) -> str | None:
    """Oban asks for Python 3.12 for the sake of one line, a type alias; in the older form it runs on 3.11."""
    [module] = place.glob("lib/python*/site-packages/oban/job.py")
    lines = module.read_text().splitlines(keepends=True)
    module.write_text("".join(_OLD_ALIAS if line.startswith(_ALIAS) else line for line in lines))
    (HOME / "oban.note").write_text(_ADAPTED.format(version=".".join(map(str, sys.version_info[:2]))))
    return _run([str(place / "bin" / "python"), "-c", "import oban"])


def _install_node(peer: Peer, place: Path) -> str | None:
    if shutil.which("npm") is None:
        return "Node.js and npm are not installed"
    return _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), *peer.install])


def _run(words: list[str]) -> str | None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    return (lines[-1] if lines else f"exit status {done.returncode}")[:300]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="peers to install; all without")
    names = parser.parse_args().names
    for peer in PEERS:
        if names and peer.name not in names:
            continue
        reason = ensure(peer)
        print(f"{peer.name:<18} {version(peer) if reason is None else 'not installed: ' + reason}", flush=True)


if __name__ == "__main__":
    main()
