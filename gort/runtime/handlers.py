"""The program's own signal handlers, and exceptions that one of them has raised.

The idea.  Python runs a handler on the main thread, in the middle of whatever goroutine runs there, and raises there
what the handler raises: a ``sys.exit()`` at SIGTERM, most often.  It is meant for the program, and so for main.  It passes
through the goroutine that it has hit, whose ``finally`` blocks run, and may be caught there; when it has ended that
goroutine, it goes on to main.

How one can tell: the handler's frame is in the traceback.  A function that is a handler and is also called by the
program itself is taken for one: let it be a function of its own.

Refused: to wrap `signal.signal` (handlers that were there before gort would escape); to hold handlers back until main
runs (it may never run again).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

from .handoff import key_of

_traceback = BaseException.__dict__["__traceback__"].__get__  # an exception's own class may hide it, or raise


def of_the_program() -> Iterator[Any]:
    """The signal handlers that are neither Python's nor gort's."""
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if hasattr(handler, "stands_for"):  # gort.signal's, which may do nothing but call the one that was there before
            handler = handler.stands_for(number)
        if callable(handler) and handler is not signal.default_int_handler and not hasattr(handler, "gort_own"):
            yield handler


def raised_by_handler(exc: BaseException) -> bool:
    """Has one of the program's signal handlers raised it?"""
    handlers = set()
    for handler in of_the_program():
        code = key_of(handler)
        handlers.add(getattr(getattr(code, "__call__", None), "__code__", code))  # an object with __call__
    tb = _traceback(exc)
    while tb is not None:
        if tb.tb_frame.f_code in handlers:
            return True
        tb = tb.tb_next
    return False
