"""A host of the next release: the one of this repository, with one migration more."""

import json
import os
import sys

from upgrade.releases import next_release

from runledger import Supervisor
from runledger.postgres import migrations

carried = next_release()
migrations.bundled_migrations = lambda: carried
supervisor = Supervisor(database_url=os.environ["RL_TEST_DATABASE_URL"], log_format="json", **json.loads(sys.argv[1]))
sys.exit(supervisor.run_until_shutdown())
