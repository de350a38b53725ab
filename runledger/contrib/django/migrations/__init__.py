"""The Django migrations of Runledger: no files, but one module for each file of ``sql/``."""

from runledger.contrib.django.sql_migrations import PATH_ENTRY
from runledger.contrib.django.sql_migrations import install_finder as _install_finder

_install_finder()
__path__ = [PATH_ENTRY]
