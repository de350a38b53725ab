"""Every setting, every way to get it wrong: one table drives all."""

from dataclasses import fields

import pytest

from runledger import InvalidConfiguration, JobsConfig

NUMBERS = {one.metadata["variable"]: one for one in fields(JobsConfig) if one.name != "worker_id"}
NOT_A_NUMBER = {
    "a word": "abc",
    "an exponent": "1e3",
    "a fraction": "1.5",
    "twenty digits": "1" * 20,
    "twenty nines below zero": "-" + "9" * 20,
    "fullwidth digits": "\uff11\uff12",
    "arabic digits": "\u0661\u0662",
    "an underscore": "1_000",
    "hexadecimal": "0x10",
    "infinity": "inf",
    "no number": "nan",
    "a plus sign": "+5",
    "two minus signs": "--5",
    "only a minus sign": "-",
    "two numbers": "5 5",
    "a superscript": "5\u00b2",
    "true": "true",
    "a control character": "5\x07",
}


@pytest.mark.parametrize("variable", NUMBERS)
@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u00a0"], ids=repr)
def test_a_blank_variable_means_the_default(variable: str, text: str) -> None:
    name = NUMBERS[variable].name

    assert getattr(JobsConfig.from_env({variable: text}), name) == getattr(JobsConfig.from_env({}), name)


@pytest.mark.parametrize("variable", NUMBERS)
@pytest.mark.parametrize("text", NOT_A_NUMBER.values(), ids=NOT_A_NUMBER)
def test_what_is_no_whole_number_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(InvalidConfiguration, match=variable):
        JobsConfig.from_env({variable: text})


@pytest.mark.parametrize("variable", NUMBERS)
def test_the_limits_themselves_are_accepted_and_what_lies_beyond_is_refused(variable: str) -> None:
    setting = NUMBERS[variable]
    minimum, maximum = setting.metadata["minimum"], setting.metadata["maximum"]
    assert minimum is not None, "every number has a lower limit"
    assert getattr(JobsConfig.from_env({variable: f" {minimum} "}), setting.name) == minimum
    with pytest.raises(InvalidConfiguration, match=variable):
        JobsConfig.from_env({variable: str(minimum - 1)})
    if maximum is not None:
        assert getattr(JobsConfig.from_env({variable: str(maximum)}), setting.name) == maximum
        with pytest.raises(InvalidConfiguration, match=variable):
            JobsConfig.from_env({variable: str(maximum + 1)})


@pytest.mark.parametrize("variable", NUMBERS)
@pytest.mark.parametrize("value", [True, 1.0, "5", None], ids=repr)
def test_a_config_made_by_hand_is_checked_too(variable: str, value: object) -> None:
    with pytest.raises(InvalidConfiguration, match=variable):
        JobsConfig(**{NUMBERS[variable].name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("variable", NUMBERS)
def test_every_setting_has_a_help_text(variable: str) -> None:
    assert NUMBERS[variable].metadata["help"].endswith(".")


def test_a_blank_worker_id_is_a_random_one() -> None:
    first, second = (JobsConfig.from_env({"JOBS_WORKER_ID": "  "}).worker_id for _ in range(2))

    assert first.startswith("worker-")
    assert first != second


@pytest.mark.parametrize("worker_id", ["a\0b", "a\nb", "x" * 121, "\u200b"], ids=repr)
def test_a_worker_id_that_nobody_could_read_is_refused(worker_id: str) -> None:
    with pytest.raises(InvalidConfiguration, match="JOBS_WORKER_ID"):
        JobsConfig.from_env({"JOBS_WORKER_ID": worker_id})


def test_options_win_over_the_environment_and_are_checked() -> None:
    config = JobsConfig.from_env({"JOBS_POLL_INTERVAL_MS": "100"})

    assert config.with_options(poll_interval_ms=None).poll_interval_ms == 100
    assert config.with_options(poll_interval_ms=7).poll_interval_ms == 7
    with pytest.raises(InvalidConfiguration):
        config.with_options(poll_interval_ms=0)


def test_a_refused_value_is_not_repeated() -> None:
    with pytest.raises(InvalidConfiguration) as refusal:
        JobsConfig.from_env({"JOBS_POLL_INTERVAL_MS": "s3cr3t"})

    assert "s3cr3t" not in str(refusal.value)
