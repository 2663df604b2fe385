"""Create, connect, recreate, stop: the only place where record and provider meet.

The intent is recorded before the provider is called and every step is a compare-and-set, so a
crash at any instant leaves a record that says what may be left at the provider.

``ledger`` is the common ground: records, provider instances, transitions. ``creation`` brings a
sandbox up, ``opening`` finds the way into an existing one, ``ending`` stops and destroys.
"""

from ekairos_sandbox.lifecycle.creation import Creation
from ekairos_sandbox.lifecycle.ending import Ending
from ekairos_sandbox.lifecycle.ledger import Ledger
from ekairos_sandbox.lifecycle.opening import Opening

__all__ = ["Creation", "Ending", "Ledger", "Opening"]
