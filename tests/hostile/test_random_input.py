"""Random input for every parser: it answers, or refuses with an error of ours in one line; nothing else ever comes out.

``RUNLEDGER_FUZZ_EXAMPLES`` says how many inputs each parser gets (100).
"""

import contextlib
import os
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runledger.cli.values import Duration, Moment
from runledger.core.cron import check_cron, check_timezone, next_fire_at
from runledger.core.errors import InvalidOutput, RunledgerError
from runledger.core.gate import check_identifier, clean_text, decode_json, encode_json
from runledger.core.requests import JobRequest, encode_request
from runledger.database.settings import connection_info, target_of
from runledger.postgres.statements import check_schema_name
from runledger.runtime.app import load_catalog
from runledger.runtime.config import JobsConfig
from runledger.runtime.obituary import Obituary

EXAMPLES = settings(max_examples=int(os.environ.get("RUNLEDGER_FUZZ_EXAMPLES", "100")), deadline=None)
NOW = datetime(2027, 1, 1, tzinfo=UTC)

text = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=200).map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.text(alphabet="0123456789*/,- \t@LW#?monfri", max_size=40),
)
urls = st.builds(
    lambda scheme, rest: scheme + rest,
    st.sampled_from(["postgresql://", "postgres://", "postgresql+psycopg://", "mysql://", "host=", ""]),
    st.text(alphabet="abc:/@%?&=[]'\\ ,;#\x00\n0123456789ü", max_size=60),
)
anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), text, st.binary(max_size=20), st.dates(), st.decimals()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(text, st.integers()), inner, max_size=5),
        st.tuples(inner),
    ),
    max_leaves=20,
)


@contextlib.contextmanager
def answers_or_refuses() -> Any:
    try:
        yield
    except RunledgerError as error:
        said = f"{error.code} {error}"
        if "\n" in said or len(said) > 1_000:
            raise AssertionError(f"not one line: {said!r}") from error


@EXAMPLES
@given(text)
def test_cron(expression: str) -> None:
    with answers_or_refuses():
        check_cron(expression)
        assert next_fire_at(expression, "Europe/Berlin", NOW) > NOW


@EXAMPLES
@given(text)
def test_zones(name: str) -> None:
    with answers_or_refuses():
        check_timezone(name)


@EXAMPLES
@given(st.one_of(urls, text))
def test_database_urls(url: str) -> None:
    assert isinstance(target_of(url), str)
    with answers_or_refuses():
        connection_info(url, "test")


@EXAMPLES
@given(st.sampled_from([one.metadata["variable"] for one in JobsConfig.__dataclass_fields__.values()]), text)
def test_settings(variable: str, value: str) -> None:
    with answers_or_refuses():
        JobsConfig.from_env({variable: value})


@EXAMPLES
@given(st.one_of(text, st.text(alphabet='{}[]",:0123456789.eE+-truefalsn \\u', max_size=80)))
def test_stored_json(stored: str) -> None:
    with answers_or_refuses():
        decode_json(stored, error=InvalidOutput)


@EXAMPLES
@given(anything)
def test_payloads(value: Any) -> None:
    with answers_or_refuses():
        stored = encode_json(value, error=InvalidOutput)
        assert encode_json(decode_json(stored, error=InvalidOutput), error=InvalidOutput) == stored


@EXAMPLES
@given(anything, anything, anything, anything)
def test_requests(job_type: Any, priority: Any, delay: Any, tags: Any) -> None:
    with answers_or_refuses():
        encode_request(JobRequest(job_type, {}, priority=priority, delay=delay, tags=tags))


@EXAMPLES
@given(anything)
def test_identifiers_and_cleaned_text(value: Any) -> None:
    cleaned = clean_text(value, 50)
    assert len(cleaned.encode()) <= 50
    assert "\0" not in cleaned
    with answers_or_refuses():
        assert check_identifier(value, field="name").isprintable()


@EXAMPLES
@given(text)
def test_names_of_apps_and_schemas(name: str) -> None:
    with answers_or_refuses():
        check_schema_name(name)
    if ":" not in name:  # with one it would be imported
        with pytest.raises(RunledgerError):
            load_catalog(name)


@EXAMPLES
@given(st.binary(max_size=300))
def test_obituaries(line: bytes) -> None:
    """The keeper reads them from a pipe; what is none is one of two errors that it expects."""
    with contextlib.suppress(ValueError, TypeError):
        Obituary.from_line(line)


@EXAMPLES
@given(text)
def test_durations_and_times_of_the_command_line(typed: str) -> None:
    import click

    for kind in (Duration(), Moment()):
        with contextlib.suppress(click.UsageError):
            kind.convert(typed, None, None)
