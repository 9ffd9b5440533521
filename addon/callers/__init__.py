"""How a request proves who is calling: by the key of an app or an agent."""

from addon.callers.identity import identify
from addon.callers.proof import Proof, find

__all__ = ["Proof", "find", "identify"]
