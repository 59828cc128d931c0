"""What losses of times to an event have in common: the head that they are for, and the targets that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.heads import Head
from genodl_spark.learning.losses import SAID

if TYPE_CHECKING:
    from genodl_spark.learning.encodings import Shape


class Times:
    """Of target rows (time, event), times above 0. `times`: those by which answers say that the event has not come."""

    def __init__(self, head: Head, inputs: Shape) -> None:
        if head.kind != "time":
            raise ValueError(
                f"the target is {SAID[head.kind]}; expected a time to an event (target.event), or a loss of that"
            )
        self.times = head.times

    def check(self, target: np.ndarray) -> None:
        if len(target) and not target[:, 0].min() > 0:
            raise ValueError(f"found the time {target[:, 0].min():g}; expected times above 0")
