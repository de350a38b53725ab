"""A host like any other that waits a moment, and not half a minute, before it takes a process for wedged."""

import json
import os
import sys

from runledger import Supervisor
from runledger.runtime import fleet, loop

fleet.WEDGED_SECONDS = 0.5
fleet.STILL_SECONDS = 2.0
loop.BEAT_SECONDS = 0.25
supervisor = Supervisor(database_url=os.environ["RL_TEST_DATABASE_URL"], log_format="json", **json.loads(sys.argv[1]))
sys.exit(supervisor.run_until_shutdown())
