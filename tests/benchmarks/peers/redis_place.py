"""Where the Redis of the benchmark is; the peers that use it read it here."""

import os

URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")
