"""A host whose supervisor inherits orphans, as the first process of a container does."""

import ctypes
import json
import os
import sys

from runledger import Supervisor

PR_SET_CHILD_SUBREAPER = 36

if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
    sys.exit("this system has no subreapers")
supervisor = Supervisor(database_url=os.environ["RL_TEST_DATABASE_URL"], log_format="json", **json.loads(sys.argv[1]))
sys.exit(supervisor.run_until_shutdown())
