"""The errors of gort: one small hierarchy.

Everything a program may want to catch derives from `GortError`, so ``except GortError`` is "something about the
runtime, not about my data".  `Cancelled` stands apart: it is a request to stop, not a failure, and derives from
`BaseException` so that a plain ``except Exception`` in the middle of a program does not swallow it.  Time-outs raise
the built-in `TimeoutError`; wrong arguments raise `TypeError` and `ValueError` as everywhere in Python.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "Cancelled",
    "ChannelClosed",
    "ContextCancelled",
    "DeadlineExceeded",
    "Deadlock",
    "GoroutineCancelled",
    "GortError",
    "RuntimeClosed",
    "ThreadLimit",
    "WouldBlockScheduler",
]


class GortError(Exception):
    """The base of every error that gort itself raises."""


class ChannelClosed(GortError):
    """A channel is closed: nothing more comes out of it, or nothing may be sent, or it was closed twice."""


class ContextCancelled(GortError):
    """A context has ended: the block under it was left early.  `cause` is the exception given to `cancel`, or None."""

    def __init__(self, message: str = "the context was cancelled", cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class DeadlineExceeded(ContextCancelled, TimeoutError):
    """A context has ended because its deadline was over."""


class Deadlock(GortError):
    """All goroutines are asleep and nothing can ever wake one.  Go: "all goroutines are asleep - deadlock!".

    Raised in the main goroutine of a `run`; its text has every goroutine's stack and what it waits for.  It is not
    raised as long as a timer, I/O, a blocking call, another thread or a signal handler might wake somebody.  A thread
    that C code has started and that is not in Python at the moment cannot be seen: a program that waits for nothing but
    a callback from one keeps a goroutine asleep, ``go(sleep, math.inf)``.
    """


class ThreadLimit(GortError):
    """The runtime would need more threads than it may start (GORT_MAXTHREADS).  Go: debug.SetMaxThreads."""


class RuntimeClosed(GortError):
    """The Runtime this was asked of has been closed."""


class WouldBlockScheduler(GortError):
    """A blocking call was made where the scheduler itself runs (a timer's callback): it would stop every goroutine."""


class GoroutineCancelled(GortError):
    """Raised by `Goroutine.result` when the goroutine asked for was cancelled and so has no result.

    It is not `Cancelled`, so that the one who asks does not look cancelled too.
    """


class Cancelled(BaseException):
    """Raised inside a goroutine that was cancelled, at its next blocking operation, once.

    ``finally`` and ``with`` blocks run and may block.  Let it pass: a goroutine that ends with it is not reported.
    """

    # For the runtime: the block that is cancelled (None: the whole goroutine), and whether it has been raised.
    scope: Any = None
    raised = False
