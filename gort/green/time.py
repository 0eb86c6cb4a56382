"""time, cooperatively: `sleep` parks the goroutine.

The names that `time.tzset` changes are asked of the standard module each time.
"""

from __future__ import annotations

import operator
import time as _time
from typing import Any

from .. import borrow as _borrow
from ..runtime.sleep import sleep as _sleep
from ..runtime.wait import parks as _parks

_CHANGING = ("altzone", "daylight", "timezone", "tzname")


def sleep(seconds: float, /) -> None:
    """Pause the goroutine for at least so many seconds; 0 lets others run.  As `time.sleep`; see `gort.sleep`."""
    if not _parks():
        _time.sleep(seconds)
        return
    if not isinstance(seconds, float):
        seconds = int(operator.index(seconds))  # a bool too, as there
    if seconds != seconds:
        raise ValueError("Invalid value NaN (not a number)")
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    if seconds >= 2**63 / 1e9:  # nanoseconds that no C integer holds, which the standard one says in its own words
        _time.sleep(seconds)
    _sleep(seconds)


_borrow.rest(_time, globals())
for _name in _CHANGING:
    del globals()[_name]


def __getattr__(name: str) -> Any:
    if name in _CHANGING:
        return getattr(_time, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
