"""The errors of operators: definitions, configs, many jobs at once; branches of the tree in ``errors.py``."""

from runledger.core.errors import ConflictError, NotFoundError, ValidationError

__all__ = [
    "ActiveScheduleExists",
    "EmptyJobTypeList",
    "RuntimeConfigConflict",
    "RuntimeConfigNotFound",
    "InvalidRuntimeConfig",
]


class ActiveScheduleExists(ConflictError):
    """A job type would be disabled while an active schedule enqueues its jobs; pause the schedule first."""

    code = "job_definition.active_schedule_exists"


class EmptyJobTypeList(ValidationError):
    """An exact synchronisation without a job type, in the catalog or in its scope, would disable everything."""

    code = "job_definition.empty_job_type_list"


class RuntimeConfigConflict(ConflictError):
    """The runtime config has another revision than the caller read; read it again."""

    code = "job.runtime_config_conflict"


class RuntimeConfigNotFound(NotFoundError):
    """No runtime config is stored for this job type."""

    code = "job.runtime_config_not_found"


class InvalidRuntimeConfig(ValidationError):
    """A runtime config is not a JSON object within the limits."""

    code = "job.invalid_runtime_config"
