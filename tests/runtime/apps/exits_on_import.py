"""An app that ends the interpreter while it is imported."""

import sys

sys.exit(3)
