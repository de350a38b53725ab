"""An app that starts a thread while it is imported, as many libraries do."""

import threading

from hostile_jobs import catalog

__all__ = ["catalog"]
threading.Thread(target=threading.Event().wait, daemon=True).start()
