"""A host like any other that claims whole batches from the first on, and keeps what waits in them for a minute."""

import json
import os
import sys

from runledger import Supervisor
from runledger.runtime import keeper, worker
from runledger.runtime.prefetch import Prefetch


class WholeBatches(Prefetch):
    __slots__ = ()

    def __init__(self, largest: int) -> None:
        super().__init__(largest)
        self.size = largest

    def learn(self, *, claimed: int, seconds: float) -> None:
        """Nothing: the next batch is a whole one as well."""


keeper.STALE_SECONDS = worker.STALE_SECONDS = 60.0
worker.Prefetch = WholeBatches  # type: ignore[misc]
supervisor = Supervisor(database_url=os.environ["RL_TEST_DATABASE_URL"], log_format="json", **json.loads(sys.argv[1]))
sys.exit(supervisor.run_until_shutdown())
