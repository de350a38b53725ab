"""The result for people: one table of medians, and the page that explains it."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks.peers.registry import OURS, PEERS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "explanation" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

COLUMNS = (
    ("drain jobs/s", "drain, jobs/s"),
    ("1 ms jobs/s", "1 ms jobs, 16 at once, jobs/s"),
    ("enqueue one /s", "enqueue one /s"),
    ("enqueue many /s", "enqueue many /s"),
    ("pick-up p50 ms", "pick-up p50 ms"),
    ("pick-up p95 ms", "p95 ms"),
    ("WAL life B", "WAL, B/job"),
    ("statements/job", "statements/job"),
    ("drain client µs/job", "client CPU µs/job"),
    ("drain server µs/job", "server CPU µs/job"),
    ("RSS MB", "RSS of a worker, MB"),
    ("workflow steps/s", "workflow steps/s"),
)


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds; ``WAL life B`` is one job from its single enqueue to its end."""
    names = {name for one in rounds for name in one}
    found = {name: statistics.median(one[name] for one in rounds if name in one) for name in names}
    if "WAL drain B/job" in found:
        found["WAL life B"] = found["WAL enqueue one B"] + found["WAL drain B/job"]
    return found


def table(result: dict[str, Any]) -> str:
    """Figures of every peer, and below each the ratio of ours to it."""
    rows = ["| System | " + " | ".join(title for _, title in COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for peer in PEERS:
        rounds = result["rounds"].get(peer.name)
        if rounds:
            found = medians(rounds)
            name = f"**{peer.name}**" if peer is OURS else peer.name
            cells = [_shown(found.get(figure)) for figure, _ in COLUMNS]
            rows.append(f"| {name} {result['versions'].get(peer.name, '')} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def ratios(result: dict[str, Any]) -> str:
    """Ours beside each peer as factors in our favour: above 1 we are ahead, whether more or less is better."""
    ours = medians(result["rounds"][OURS.name])
    chosen = [one for one in COLUMNS if one[0] not in ("RSS MB",)]
    rows = ["| Ours beside | " + " | ".join(title for _, title in chosen) + " |", "| --- |" + " --- |" * len(chosen)]
    for peer in PEERS:
        rounds = result["rounds"].get(peer.name)
        if peer is OURS or not rounds:
            continue
        theirs = medians(rounds)
        rows.append(f"| {peer.name} | " + " | ".join(_ratio(ours, theirs, figure) for figure, _ in chosen) + " |")
    return "\n".join(rows)


def kept(result: dict[str, Any]) -> str:
    """What each keeps of a job, and what it does not do."""
    rows = ["| System | Keeps of a job | Does not |", "| --- | --- | --- |"]
    for peer in PEERS:
        reason = result["failed"].get(peer.name)
        lacks = f"**not measured**: {_one_line(reason)}" if reason else peer.lacks
        rows.append(f"| {peer.name} | {peer.keeps} | {lacks} |")
    return "\n".join(rows)


def write(result: dict[str, Any]) -> None:
    """The measured part of the page, between its marks, is replaced."""
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    measured = "\n\n".join(
        [
            f"{result['date']}, medians of {result['repeats']} rounds in turns. {result['machine']}.",
            table(result),
            "Ours beside each, as a factor in our favour (below 1 the peer is ahead):",
            ratios(result),
            kept(result),
        ]
    )
    PAGE.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}")


def _ratio(ours: dict[str, float], theirs: dict[str, float], figure: str) -> str:
    if not ours.get(figure) or not theirs.get(figure):
        return "–"
    is_more_better = figure.endswith("/s")
    factor = ours[figure] / theirs[figure] if is_more_better else theirs[figure] / ours[figure]
    return f"{factor:.2g}" if factor < 10 else f"{factor:,.0f}"


def _shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:200]
