"""
The last belt: what a response repeats of the secret that its request carried becomes stars.

    variants    the spellings in which software gives a value back
    needles     finding them, fast
    redactor    a body, piece by piece, whatever the pieces are
    decoding    bodies that are compressed although nobody asked for it
    screen      one exchange: which response head and body the caller gets

A belt and not the boundary: whoever can make an upstream transform what it echoes gets past it. The boundary is the
binding, which says where a secret may go at all.
"""

from addon.redaction.needles import Needles
from addon.redaction.redactor import Redactor
from addon.redaction.screen import Passage, Screen, Screened, ask_plainly
from addon.redaction.variants import MINIMUM, variants

__all__ = ["MINIMUM", "Needles", "Passage", "Redactor", "Screen", "Screened", "ask_plainly", "variants"]
