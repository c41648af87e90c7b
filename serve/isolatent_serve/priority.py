"""Who gives way when there is more to do than processors: threads that compute, to the one that answers.

A service past its capacity has to refuse at once what it cannot do. The thread that does so needs little, but needs it
soon; left alone, the system would give it no more than each of those that always have something to do.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

_NICER = 5
"""Steps: a third of the processor time, where there is too little of it."""


def give_way() -> None:
    """Lower the priority of this thread, and of those that it starts from now on, where the system can do that."""
    if sys.platform == "linux":  # elsewhere it would be that of the whole process
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICER)
