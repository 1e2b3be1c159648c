"""The sandbox as the API that `shared.business` describes: what commands and tests serve."""

from dev.sandbox.api import SandboxOptions
from shared.business import COLLECTION, NATURAL_KEY, assigned

STAND_IN = SandboxOptions(path=COLLECTION, natural_key=NATURAL_KEY, assign=assigned)
"""With state in memory, and the usual tokens."""
