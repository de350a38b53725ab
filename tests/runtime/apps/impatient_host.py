"""A host like any other that waits half a second, and not half a minute, before it takes a worker for wedged."""

import json
import os
import sys

from runledger import Supervisor
from runledger.runtime import fleet

fleet.WEDGED_SECONDS = 0.5
supervisor = Supervisor(database_url=os.environ["RL_TEST_DATABASE_URL"], log_format="json", **json.loads(sys.argv[1]))
sys.exit(supervisor.run_until_shutdown())
