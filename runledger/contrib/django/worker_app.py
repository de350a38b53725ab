"""What a worker of a Django project runs: ``--app runledger.contrib.django.worker_app:load_catalog``.

``manage.py runledger`` names it by default. With DJANGO_SETTINGS_MODULE set, the command ``runledger`` may name it too;
then the supervisor stays free of Django, and new workers run new code.
"""

import django
from django.apps import apps

from runledger.core.catalog import JobCatalog


def load_catalog() -> JobCatalog:
    """The catalog of the project with the jobs of every installed app; Django is set up, and nothing of it holds a
    connection that a fork could share."""
    if not apps.ready:
        django.setup()
    from runledger.contrib.django.connections import close_before_fork
    from runledger.contrib.django.registry import autodiscover

    catalog = autodiscover()
    close_before_fork()
    return catalog
