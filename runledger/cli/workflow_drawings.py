"""A run as a drawing: text for a terminal, Mermaid or DOT for a page, JSON for programs.

Keys were written by other people, so nothing of them steers a terminal or ends a label.
"""

import html
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from runledger.cli.output import printable
from runledger.core.states import ReleaseMode, WorkflowStepStatus
from runledger.core.workflows import WorkflowRun, WorkflowStep, WorkflowStepDependency

_COLORS = {
    WorkflowStepStatus.BLOCKED: "#eeeeee",
    WorkflowStepStatus.WAITING_FOR_EXTERNAL: "#fff2b3",
    WorkflowStepStatus.ENQUEUED: "#d6e6ff",
    WorkflowStepStatus.RUNNING: "#b3f0ff",
    WorkflowStepStatus.SUCCEEDED: "#c9efc9",
    WorkflowStepStatus.FAILED: "#ffc9c9",
    WorkflowStepStatus.CANCELED: "#e0d0e8",
}


class Drawing(NamedTuple):
    """A run with all its steps and edges."""

    run: WorkflowRun
    steps: Sequence[WorkflowStep]
    edges: Sequence[WorkflowStepDependency]


def as_text(drawing: Drawing) -> str:
    """A line for each step: key, status, and what it waits for; ``?`` marks an edge that any end satisfies."""
    before: dict[str, list[str]] = {}
    for edge in drawing.edges:
        mark = "" if edge.release_mode is ReleaseMode.ON_SUCCESS else "?"
        before.setdefault(edge.dependent_step_key, []).append(printable(edge.prerequisite_step_key) + mark)
    width = max((len(printable(step.step_key)) for step in drawing.steps), default=0)
    lines = []
    for step in drawing.steps:
        after = before.get(step.step_key)
        line = f"{printable(step.step_key).ljust(width)}  {step.status}"
        lines.append(f"{line}  <- {', '.join(after)}" if after else line)
    return "\n".join(lines)


def as_mermaid(drawing: Drawing) -> str:
    """A Mermaid flowchart; gates are rhombs, edges that any end satisfies are dotted."""
    names = _names(drawing)
    lines = ["flowchart TD"]
    for step in drawing.steps:
        opening, closing = ('{"', '"}') if step.job_type is None else ('["', '"]')
        label = html.escape(printable(step.step_key)).replace("&quot;", "#quot;")
        lines.append(f"    {names[step.step_key]}{opening}{label}<br/>{step.status}{closing}:::{step.status}")
    for edge in drawing.edges:
        arrow = "-->" if edge.release_mode is ReleaseMode.ON_SUCCESS else "-.->"
        lines.append(f"    {names[edge.prerequisite_step_key]} {arrow} {names[edge.dependent_step_key]}")
    used = dict.fromkeys(step.status for step in drawing.steps)
    lines += [f"    classDef {status} fill:{_COLORS[status]},stroke:#555" for status in used]
    return "\n".join(lines)


def as_dot(drawing: Drawing) -> str:
    """A Graphviz digraph, in the same signs."""
    names = _names(drawing)
    lines = ["digraph run {", "    node [style=filled];"]
    for step in drawing.steps:
        shape = "diamond" if step.job_type is None else "box"
        label = json.dumps(f"{printable(step.step_key)}\n{step.status}")
        lines.append(f'    {names[step.step_key]} [label={label}, shape={shape}, fillcolor="{_COLORS[step.status]}"];')
    for edge in drawing.edges:
        style = "solid" if edge.release_mode is ReleaseMode.ON_SUCCESS else "dashed"
        lines.append(f"    {names[edge.prerequisite_step_key]} -> {names[edge.dependent_step_key]} [style={style}];")
    return "\n".join([*lines, "}"])


def as_document(drawing: Drawing) -> dict[str, Any]:
    """Nodes and edges by step key."""
    return {
        "run_id": drawing.run.run_id,
        "workflow_type": drawing.run.workflow_type,
        "status": drawing.run.status,
        "steps": [
            {"step_key": step.step_key, "kind": step.kind, "status": step.status, "job_type": step.job_type}
            for step in drawing.steps
        ],
        "edges": [
            {
                "prerequisite": edge.prerequisite_step_key,
                "dependent": edge.dependent_step_key,
                "release_mode": edge.release_mode,
            }
            for edge in drawing.edges
        ],
    }


def _names(drawing: Drawing) -> dict[str, str]:
    return {step.step_key: f"s{number}" for number, step in enumerate(drawing.steps)}
