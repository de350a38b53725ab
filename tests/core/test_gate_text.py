"""Text on internal paths never fails; identifiers are refused unless they are clean."""

import unicodedata
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runledger.core.errors import InvalidDefinition, InvalidIdentifier
from runledger.core.gate import IDENTIFIER_LIMIT, KEY_LIMIT, check_identifier, clean_text


class Unspeakable:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


class NotText:
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class JobType(StrEnum):
    RECEIPT = "mail.receipt"


ANY_TEXT = st.text(st.characters(), max_size=80)


@given(ANY_TEXT, st.integers(3, 60), st.booleans())
def test_clean_text_can_be_stored_and_fits(text, limit, keep_end):
    cleaned = clean_text(text, limit, keep_end=keep_end)
    assert len(cleaned.encode()) <= limit
    assert "\0" not in cleaned


@given(ANY_TEXT)
def test_clean_text_removes_nothing_but_nul_and_surrogates(text):
    kept = "".join(character for character in text if character != "\0" and not 0xD800 <= ord(character) <= 0xDFFF)
    assert clean_text(text, 1_000) == kept


def test_cut_text_says_so_and_keeps_whole_characters():
    assert clean_text("x" * 11, 10) == "x" * 7 + "…"
    assert clean_text("é" * 6, 10) == "ééé…"
    assert clean_text("é" * 6 + "end", 10, keep_end=True) == "…éé" + "end"
    assert clean_text("\0" * 100 + "message", 10) == "message"


@pytest.mark.parametrize(
    "value",
    [Unspeakable(ValueError()), Unspeakable(SystemExit(3)), Unspeakable(KeyboardInterrupt()), NotText()],
)
def test_clean_text_survives_a_str_that_raises(value):
    assert clean_text(value, 100) == f"<{type(value).__name__} without text>"


def test_clean_text_takes_any_object():
    assert clean_text(None, 10) == "None"
    assert clean_text(ValueError("a\0b"), 10) == "ab"


@pytest.mark.parametrize(
    "value",
    [
        "mail.receipt", "../../etc/passwd", "'; DROP TABLE job_queue; --", "a b", "x" * 200, "é" * 100, "раураl",
        "Mail.Receipt", "日本語", "a😀b", "${jndi:ldap://x}", "a;b", '"', "%s",
    ],
)  # fmt: skip
def test_a_clean_identifier_passes_unchanged(value):
    assert check_identifier(value, field="job_type") == value


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "  ", "\t", "\n", "\u00a0", "\u200b", "\ufeff", "\u2060", "\u3000", "\u3164", "\u2800", "\u00ad",
        " a", "a ", "a\u00a0", "\u200ba", "a\u200b", "a\u200bb", "a\0", "a\nb", "a\rb", "\x1b[31m", "\ud800", "\u202ea",
        "\u2028", "x" * 201, "é" * 101, "e\u0301" * 101, "x" * 10_000_000, None, 7, b"a", ["a"], object(),
    ],
)  # fmt: skip
def test_anything_else_is_refused_without_its_value(value):
    with pytest.raises(InvalidIdentifier) as refusal:
        check_identifier(value, field="job_type")
    assert str(refusal.value).startswith("job_type ")
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 100


def test_two_spellings_of_one_name_become_one_name():
    assert check_identifier("cafe\u0301", field="job_type") == "café"
    assert check_identifier("e\u0301" * 100, field="job_type") == "é" * 100


def test_an_enum_member_becomes_plain_text():
    checked = check_identifier(JobType.RECEIPT, field="job_type")
    assert type(checked) is str
    assert checked == "mail.receipt"


def test_limit_and_error_class_are_the_callers():
    assert check_identifier("k" * KEY_LIMIT, field="key", limit_bytes=KEY_LIMIT) == "k" * KEY_LIMIT
    with pytest.raises(InvalidDefinition, match="queue is longer than 512 bytes"):
        check_identifier("k" * 513, field="queue", error=InvalidDefinition, limit_bytes=KEY_LIMIT)


@given(ANY_TEXT)
def test_what_passes_is_normal_and_passes_again(text):
    try:
        checked = check_identifier(text, field="job_type")
    except InvalidIdentifier:
        return
    assert unicodedata.is_normalized("NFC", checked)
    assert checked == checked.strip()
    assert 0 < len(checked.encode()) <= IDENTIFIER_LIMIT
    assert check_identifier(checked, field="job_type") == checked
