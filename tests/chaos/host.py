"""One host of the soak, as its own process; ``CHAOS_MUTANT`` names a fault to plant in it first."""

import json
import os
import sys

from chaos.mutants import plant

from runledger import Supervisor

if name := os.environ.get("CHAOS_MUTANT"):
    plant(name)
supervisor = Supervisor(database_url=os.environ["RL_TEST_DATABASE_URL"], log_format="json", **json.loads(sys.argv[1]))
sys.exit(supervisor.run_until_shutdown())
