"""What an error shows: its message to anybody, its hint to whoever reads the traceback or the command line."""

import pickle
import traceback

import pytest

from runledger.core.catalog import JobCatalog
from runledger.core.errors import InvalidConfiguration, UnknownJobType


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_a_traceback_ends_with_the_hint_and_the_message_stays_without_it() -> None:
    error = InvalidConfiguration("no database is named", hint="set RUNLEDGER_DATABASE_URL")
    assert str(error) == "no database is named"
    assert shown(error).splitlines()[-1] == "hint: set RUNLEDGER_DATABASE_URL"


def test_an_error_without_a_hint_has_no_note() -> None:
    assert shown(InvalidConfiguration("no database is named")).splitlines()[-1].endswith("no database is named")


def test_the_hint_stands_there_once_in_another_process_too() -> None:
    error = pickle.loads(pickle.dumps(InvalidConfiguration("no", hint="set it")))
    assert (error.hint, shown(error).count("hint:")) == ("set it", 1)


def test_an_unknown_job_type_is_named_and_so_are_those_that_there_are() -> None:
    catalog = JobCatalog()
    catalog.job("mail.send")(lambda context, payload: None)
    with pytest.raises(UnknownJobType, match=r"no job of type 'mail\.sendd'") as refused:
        catalog.request("mail.sendd", {})
    assert refused.value.hint == "job types: mail.send"


def test_whatever_is_asked_for_is_named_on_one_short_line() -> None:
    with pytest.raises(UnknownJobType) as refused:
        JobCatalog().handler("mail\nsend\x1b[31m" + "x" * 5_000)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400
