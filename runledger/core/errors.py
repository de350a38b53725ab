"""Every error a caller can meet, in one tree, each with a stable dotted ``code``.

    RunledgerError
    ├── ConflictError        the stored state disagrees; reading it again may help
    ├── ValidationError      the request is wrong as it stands; nothing was written
    ├── NotFoundError        what the request names does not exist in the given scope
    ├── ForbiddenError       the caller does not hold the right it needs (a lease, a grant)
    ├── UnavailableError     the database cannot be used now; the same call may succeed later
    ├── ConfigurationError   the program is set up wrongly; a person has to change something
    └── InternalError        stored data or the library contradicts itself

``str(error)`` is safe to show to a client: it never contains payloads, DSNs or SQL. What helps stands in ``hint``,
and below the error in a traceback. What an operator needs stands in ``internal_message`` and is meant for logs only.
"""

from runledger.core import database_errors, error_tree, request_errors, setup_errors, state_errors
from runledger.core.database_errors import *  # noqa: F403 - each named in its __all__
from runledger.core.error_tree import *  # noqa: F403 - each named in its __all__
from runledger.core.request_errors import *  # noqa: F403 - each named in its __all__
from runledger.core.setup_errors import *  # noqa: F403 - each named in its __all__
from runledger.core.state_errors import *  # noqa: F403 - each named in its __all__

__all__: list[str] = []
__all__ += error_tree.__all__
__all__ += request_errors.__all__
__all__ += state_errors.__all__
__all__ += database_errors.__all__
__all__ += setup_errors.__all__
