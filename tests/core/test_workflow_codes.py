"""The codes that programs branch on, as the field knows them: each has its class and its category, and is raised."""

import inspect
import re
from pathlib import Path

import pytest

from runledger.core import workflow_errors as errors
from runledger.core.errors import RunledgerError
from runledger.core.workflows import DEPENDENCY_UNSATISFIED

TESTS = Path(__file__).parents[1]
VALIDATION, CONFLICT, NOT_FOUND, INTERNAL = "validation", "conflict", "not_found", "internal"
CODES = {
    **dict.fromkeys(
        (
            "invalid_dag",
            "invalid_dag_empty",
            "invalid_dag_workflow_type_blank",
            "invalid_dag_step_key_blank",
            "invalid_dag_job_type_blank",
            "invalid_dag_idempotency_key_blank",
            "invalid_dag_step_max_attempts_non_positive",
            "invalid_dag_step_timeout_seconds_non_positive",
            "invalid_dag_external_step_job_type_not_allowed",
            "invalid_dag_external_step_queue_settings_not_allowed",
            "invalid_dag_dependency_step_key_blank",
            "invalid_dag_duplicate_step_key",
            "invalid_dag_missing_dependency",
            "invalid_dag_self_dependency",
            "invalid_dag_duplicate_dependency",
            "invalid_dag_cycle",
            "invalid_dag_dependency_count_overflow",
            "definition_not_found_or_disabled",
            "enqueue_idempotency_unsupported_isolation",
            "append_unsupported_isolation",
            "cancel_unsupported_isolation",
            "terminal_completion_unsupported_isolation",
            "external_completion_unsupported_isolation",
            "recovery_unsupported_isolation",
            "append_mutation_key_blank",
            "append_terminal_run",
            "append_window_missing",
            "append_window_not_external",
            "append_window_not_open",
            "external_step_not_external",
            "external_step_not_waiting",
            "external_step_invalid_terminal_status",
            "external_step_output_invalid_status",
            "invalid_recovery_reason",
            "result_not_declared",
        ),
        VALIDATION,
    ),
    **dict.fromkeys(
        (
            "enqueue_conflicting_retry",
            "legacy_idempotency_snapshot_missing",
            "already_enqueued",
            "append_conflicting_retry",
            "external_step_conflicting_completion_retry",
            "external_step_conflicting_output_retry",
            "release_conflict",
            "recovery_source_not_terminal",
            "recovery_active_constraint",
            "result_unsuccessful_terminal",
        ),
        CONFLICT,
    ),
    **dict.fromkeys(
        ("run_not_found", "external_step_not_found", "recovery_source_not_found", "result_missing"), NOT_FOUND
    ),
    "internal_state": INTERNAL,
    "result_wait_timeout": "unavailable",
}
WITHOUT_A_PLACE = {
    "linkage_symmetry_violation": "a step and its job are linked once",
    "linkage_symmetry_trigger_table_invalid": "the same",
    "linkage_cutover_audit_failed": "the same",
    "linkage_compatibility_trigger_table_invalid": "the same",
    "external_gate_downgrade_blocked": "migrations go forward only",
    "active_key_required": "one function enqueues with and without an active key",
    "active_key_api_required": "the same",
    "invalid_recovery_request_key": "a re-run is recognised by the run that it runs again",
    "recovery_request_conflict": "the same",
    "recovery_source_step_not_found": "a re-run is always one of the whole run",
    "recovery_snapshot_missing": "a re-run copies the steps, not a snapshot",
    "recovery_snapshot_unsafe": "the same",
    "handle_storage_error": "errors of the database have classes of their own",
    "handle_internal_state": "the same",
}
BASES = {errors.InvalidWorkflow, errors.WorkflowRequestConflict, errors.WorkflowUnsupportedIsolation}

CLASSES = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__name__ in errors.__all__}


@pytest.mark.parametrize(("code", "category"), sorted(CODES.items()))
def test_a_code_has_its_class_and_category(code: str, category: str) -> None:
    (kind,) = [one for one in CLASSES if one.code == f"workflow.{code}"]

    assert kind.category == category


def test_a_code_without_a_place_is_raised_by_nobody() -> None:
    assert not {f"workflow.{code}" for code in WITHOUT_A_PLACE} & {kind.code for kind in CLASSES}
    assert not WITHOUT_A_PLACE.keys() & CODES.keys()


def test_every_error_of_workflows_is_raised_in_a_test() -> None:
    texts = [path.read_text() for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    expected = {name for text in texts for name in re.findall(r"\berrors\.([A-Z]\w+)", text)}
    expected |= {name for text in texts for name in re.findall(r"raises\(([A-Z]\w+)", text)}

    assert {kind.__name__ for kind in CLASSES - BASES} - expected == set()


def test_what_is_stored_on_a_step_is_no_exception() -> None:
    stored = DEPENDENCY_UNSATISFIED

    assert stored == "workflow.dependency_unsatisfied"
    assert stored not in {kind.code for kind in CLASSES}
    assert all(issubclass(kind, RunledgerError) for kind in CLASSES)
