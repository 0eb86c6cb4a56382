"""selectors, cooperatively: the standard classes over gort.green.select.

So a server written around a selector parks its goroutine where it would block its thread, and so does asyncio's
``SelectorEventLoop(DefaultSelector())``.
"""

from __future__ import annotations

import selectors as _selectors
from typing import Any

from .. import borrow as _borrow
from . import select as _select


class SelectSelector(_selectors.SelectSelector):
    """As `selectors.SelectSelector`."""

    _select = staticmethod(_select.select)


DefaultSelector: Any = SelectSelector

if hasattr(_selectors, "PollSelector"):

    class PollSelector(_selectors.PollSelector):
        """As `selectors.PollSelector`."""

        _selector_cls = _select.poll

    DefaultSelector = PollSelector

if hasattr(_selectors, "KqueueSelector"):

    class KqueueSelector(_selectors.KqueueSelector):
        """As `selectors.KqueueSelector`."""

        def __init__(self) -> None:
            super().__init__()
            self._selector.close()
            self._selector = _select.kqueue()

    DefaultSelector = KqueueSelector

if hasattr(_selectors, "EpollSelector"):

    class EpollSelector(_selectors.EpollSelector):
        """As `selectors.EpollSelector`."""

        _selector_cls = _select.epoll

    DefaultSelector = EpollSelector

_borrow.rest(_selectors, globals())
