"""WHO OWNS A TRANSACTION outside the workers: the pool, ``begin``, migrations, and the ``Ledger`` of applications."""

from runledger.database.database import Database
from runledger.database.ledger import Ledger
from runledger.database.migrate import ensure_schema_compatible, migrate, plan_migrations

__all__ = ["Database", "Ledger", "ensure_schema_compatible", "migrate", "plan_migrations"]
