"""Whether the schema fits this release, as a host sees it that may live while the schema moves on."""

from runledger.core.errors import SchemaAhead
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.migrations import check_schema
from runledger.runtime.slots import SlotTable


def check_fitness(ledger: LedgerConnection, table: SlotTable) -> SchemaAhead | None:
    """The schema is what this release needs; or it was when this host looked first, and the answer says how it has
    moved ahead since. A migration leaves a schema with which the release before works on, so a host that works when it
    comes goes on, and what it starts anew does too. Raises what ``check_schema`` raises.
    """
    try:
        check_schema(ledger)
    except SchemaAhead as ahead:
        if not table.has_fitted:
            raise
        return ahead
    table.note_fit()
    return None
