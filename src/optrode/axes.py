"""The only list of axis names, in their one order, and the tensor aliases built from them."""

from typing import Final

BATCH: Final = "batch"
POS: Final = "pos"
HEAD: Final = "head"
SRC: Final = "src"
FEATURE: Final = "feature"
CHANNEL: Final = "channel"
LAYER: Final = "layer"

SELECTABLE: Final = (HEAD, POS, SRC, CHANNEL, FEATURE)
"""Axes that a site name may select on, in the order in which they print."""

RESIDUAL_AXES: Final = (BATCH, POS, FEATURE)
HEAD_AXES: Final = (BATCH, POS, HEAD, FEATURE)
PATTERN_AXES: Final = (BATCH, HEAD, POS, SRC)
GENERIC_AXES: Final = {
    1: (BATCH,),
    2: (BATCH, FEATURE),
    3: (BATCH, POS, FEATURE),
    4: (BATCH, CHANNEL, "height", "width"),
}
"""Axes assumed for the tensors of modules that no family table describes, by number of dimensions."""
