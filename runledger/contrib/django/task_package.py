"""Django's tasks, from wherever they come: ``django.tasks`` (Django 6), else its backport ``django_tasks``."""

import importlib
import importlib.util
from typing import Final

PACKAGE: Final = "django.tasks" if importlib.util.find_spec("django.tasks") else "django_tasks"

tasks = importlib.import_module(PACKAGE)
base = importlib.import_module(f"{PACKAGE}.base")
exceptions = importlib.import_module(f"{PACKAGE}.exceptions")
signals = importlib.import_module(f"{PACKAGE}.signals")
BaseTaskBackend = importlib.import_module(f"{PACKAGE}.backends.base").BaseTaskBackend
