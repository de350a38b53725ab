"""How an explanation stands on a screen: the verdict, the conditions with a mark each, and what to do."""

import sys

import click

from runledger.cli.options import Session
from runledger.cli.output import print_json, printable
from runledger.core.explanations import GateState, JobExplanation

MARKS = {GateState.OPEN: "✓", GateState.SHUT: "✗", GateState.NOTE: "!", GateState.UNKNOWN: "?"}
PLAIN_MARKS = {GateState.OPEN: "+", GateState.SHUT: "x", GateState.NOTE: "!", GateState.UNKNOWN: "?"}
COLORS = {GateState.OPEN: "green", GateState.SHUT: "red", GateState.NOTE: "yellow", GateState.UNKNOWN: "blue"}


def print_explanation(session: Session, found: JobExplanation) -> None:
    """One JSON document, or a screen. Reasons were written by other people, so nothing in them steers the terminal."""
    if session.is_json:
        print_json(found)
        return
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    marks = MARKS if is_unicode else PLAIN_MARKS
    click.echo(click.style(printable(found.verdict), bold=True))
    attempt = f"run {found.run_number}, attempt {found.attempt} of {found.max_attempts}"
    click.echo(printable(f"{found.status}  {found.job_type}  {found.job_id}  {attempt}"))
    click.echo()
    width = max((len(gate.name) for gate in found.gates), default=0)
    for gate in found.gates:
        mark = click.style(marks[gate.state], fg=COLORS[gate.state])
        click.echo(f"  {mark} {gate.name.ljust(width)}  {printable(gate.text)}")
    if found.estimated_from:
        seconds = found.estimated_start_seconds
        start = "unknown" if seconds is None else f"in about {seconds:.0f} s"
        click.echo(f"\nEstimated start: {start}, from {found.estimated_from}")
    if found.advice:
        click.echo("\nWhat to do:")
        for line in found.advice:
            click.echo(f"  {printable(line)}")
