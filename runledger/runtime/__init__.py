"""HOW IT RUNS: the supervisor and its processes. A process is a ``tick()``; this is the only package that logs."""

from runledger.runtime.config import JobsConfig
from runledger.runtime.supervisor import Supervisor

__all__ = ["JobsConfig", "Supervisor"]
