"""A real small Django project in a folder of its own, and its ``manage.py``."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

from psycopg.conninfo import conninfo_to_dict

PATIENCE_SECONDS = 60

SETTINGS = """
SECRET_KEY = "for tests only"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = {apps!r}
DATABASES = {databases!r}
RUNLEDGER = {runledger!r}
TEMPLATES = [{{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {{"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]}},
}}]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
{more}
"""

MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""

JOBS = """
from runledger.contrib.django import job

@job("shop.pay", max_attempts=2)
def pay(context, payload):
    from shop.models import Order
    Order.objects.filter(pk=payload["order"]).update(status="paid")
    return {"paid": payload["order"]}
"""

MODELS = """
from django.db import models

class Order(models.Model):
    item = models.TextField(unique=True)
    status = models.TextField(default="new")
"""

APPS = ("runledger.contrib.django", "shop")
ALL_APPS = (
    *APPS,
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.admin",
    "django.contrib.messages",
    "django.contrib.sessions",
)


def database(url: str, **more: Any) -> dict[str, Any]:
    """An entry of DATABASES for a connection string."""
    parts = conninfo_to_dict(url)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {"ENGINE": "django.db.backends.postgresql"} | {key: parts.get(one, "") for key, one in names.items()} | more


@dataclass
class Project:
    """A folder with a ``manage.py``. Running a command never leaves a process behind."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    def run(self, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """``manage.py ARGUMENTS`` has ended with ``code``."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.folder,
            env=self.clean_environment() | environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def python(self, program: str, **environment: str) -> str:
        """What ``program`` prints, run in the project with Django set up."""
        setup = (
            "import os, django\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'settings')\n"
            "django.setup()\nfrom django.db import connections, connection, transaction\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", setup + dedent(program)],
            cwd=self.folder,
            env=self.clean_environment() | environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout.strip()

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """``manage.py ARGUMENTS`` in the background; its output is in ``process.log``. The caller ends it."""
        with (self.folder / "process.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "manage.py", *arguments],
                cwd=self.folder,
                env=self.clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def clean_environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNLEDGER_", "DATABASE_"))}
        kept.pop("DJANGO_SETTINGS_MODULE", None)
        return kept | self.environment


def make_project(
    folder: Path,
    databases: dict[str, dict[str, Any]],
    *,
    runledger: dict[str, Any] | None = None,
    apps: tuple[str, ...] = APPS,
    more: str = "",
) -> Project:
    """A project with the app ``shop``: one model, its migration and one job."""
    project = Project(folder)
    settings = SETTINGS.format(apps=list(apps), databases=databases, runledger=runledger or {}, more=dedent(more))
    project.write("settings.py", settings)
    project.write("manage.py", MANAGE)
    project.write("urls.py", "urlpatterns = []\n")
    project.write("shop/__init__.py", "")
    project.write("shop/models.py", MODELS)
    project.write("shop/jobs.py", JOBS)
    project.write("shop/migrations/__init__.py", "")
    project.write(
        "shop/migrations/0001_initial.py",
        """
        from django.db import migrations, models

        class Migration(migrations.Migration):
            initial = True
            operations = [
                migrations.CreateModel("Order", [
                    ("id", models.AutoField(primary_key=True, serialize=False, auto_created=True, verbose_name="ID")),
                    ("item", models.TextField(unique=True)),
                    ("status", models.TextField(default="new")),
                ]),
            ]
        """,
    )
    return project
