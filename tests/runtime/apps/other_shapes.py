"""Attributes that are, make, or only look like a catalog."""

from runledger import JobCatalog

catalog = JobCatalog()
not_a_catalog = {"job": "none"}


def make_catalog() -> JobCatalog:
    return JobCatalog()


def make_nothing() -> None:
    return None


def fail_to_make() -> JobCatalog:
    raise RuntimeError("the factory failed")
