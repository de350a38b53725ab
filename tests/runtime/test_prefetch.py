"""How many jobs to claim at once: pure."""

import pytest

from runledger.runtime.prefetch import BATCH_SECONDS, Prefetch


def test_the_first_claim_takes_one_job() -> None:
    assert Prefetch(100).size == 1


def test_full_and_short_batches_grow_the_next_fourfold_up_to_the_largest() -> None:
    prefetch = Prefetch(100)
    sizes = []
    for _ in range(5):
        prefetch.learn(claimed=prefetch.size, seconds=0.001)
        sizes.append(prefetch.size)

    assert sizes == [4, 16, 64, 100, 100]


@pytest.mark.parametrize(("share", "size"), [(0.2, 64), (0.3, 48), (0.45, 32), (0.6, 16), (1.0, 16)])
def test_a_batch_grows_by_no_more_than_fits(share: float, size: int) -> None:
    prefetch = Prefetch(100)
    prefetch.size = 16
    prefetch.learn(claimed=16, seconds=BATCH_SECONDS * share)

    assert prefetch.size == size


def test_a_batch_that_was_not_full_teaches_nothing() -> None:
    prefetch = Prefetch(100)
    prefetch.size = 16
    prefetch.learn(claimed=3, seconds=0.001)

    assert prefetch.size == 16


def test_a_batch_that_would_not_fit_twice_is_not_doubled() -> None:
    prefetch = Prefetch(100)
    prefetch.size = 16
    prefetch.learn(claimed=16, seconds=BATCH_SECONDS * 0.75)

    assert prefetch.size == 16


@pytest.mark.parametrize(("seconds", "size"), [(0.2, 32), (0.8, 8), (6.4, 1), (3_600.0, 1)])
def test_a_long_batch_falls_at_once_to_what_fits(seconds: float, size: int) -> None:
    prefetch = Prefetch(100)
    prefetch.size = 64
    prefetch.learn(claimed=64, seconds=seconds)

    assert prefetch.size == size


def test_a_long_batch_never_grows_the_next() -> None:
    prefetch = Prefetch(100)
    prefetch.size = 2
    prefetch.learn(claimed=50, seconds=0.11)

    assert prefetch.size == 2


def test_a_largest_batch_of_one_turns_it_off() -> None:
    prefetch = Prefetch(1)
    prefetch.learn(claimed=1, seconds=0.0)

    assert prefetch.size == 1
