"""One host as its own process: the supervisor with the options of the first argument, until it ends."""

import json
import os
import sys
import threading

from runledger import Supervisor

options = json.loads(sys.argv[1])
if options.pop("has_second_thread", False):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
supervisor = Supervisor(database_url=os.environ["RL_TEST_DATABASE_URL"], log_format="json", **options)
sys.exit(supervisor.run_until_shutdown())
