"""Alerts and dashboards ask only for metrics and labels that exist, and the reference lists exactly those."""

import json
import re
from pathlib import Path

import pytest

from runledger.runtime.link import DatabaseLink
from runledger.runtime.metrics import Metrics
from runledger.runtime.slots import SlotTable
from runledger.runtime.tally import TallyBoard

DOCS = Path(__file__).parents[2] / "docs"
METRIC = re.compile(r"\brunledger_\w+")
GROUPING = re.compile(r"\bby \(([^)]*)\)|\{(\w+)=")
SUFFIXES = {"counter": ["_total"], "histogram": ["_count", "_sum", "_bucket"], "gauge": [""]}
ROW = re.compile(r"^\| `(runledger_\w+)` \| (\w+) \| ([^|]*)\|", re.MULTILINE)


def documented() -> dict[str, tuple[str, set[str]]]:
    """Kind and labels by name."""
    rows = ROW.findall((DOCS / "reference" / "metrics.md").read_text())
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def expressions() -> list[str]:
    dashboard = json.loads((DOCS / "deploy" / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    alerts = (DOCS / "deploy" / "alerts.yaml").read_text()
    return asked + re.findall(r"expr: (?:\|\n)?(.*?)\n        (?:for|labels):", alerts, re.DOTALL)


def test_the_reference_names_every_metric_with_its_kind_and_labels(database_url: str) -> None:
    table = SlotTable(1)
    link = DatabaseLink(database_url, "runledger", "test")
    families = {one.name: one for one in Metrics(table.slots, TallyBoard(1), link).collect()}
    link.close()
    told = {
        (name.removesuffix("_total") if kind == "counter" else name): (kind, labels)
        for name, (kind, labels) in documented().items()
    }
    assert told == {name: (one.type, set(one._labelnames)) for name, one in families.items()}


def test_there_are_expressions_to_check() -> None:
    assert len(expressions()) >= 10


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_asks_for_what_exists(expression: str) -> None:
    known = documented()
    series = {
        name if kind == "counter" else name + suffix: labels
        for name, (kind, labels) in known.items()
        for suffix in SUFFIXES[kind]
    }
    names = METRIC.findall(expression)
    assert names
    assert set(names) <= set(series)
    grouped = {label.strip() for many, one in GROUPING.findall(expression) for label in (many or one).split(",")}
    assert grouped <= set().union(*(series[name] for name in names)) | {"le"}
