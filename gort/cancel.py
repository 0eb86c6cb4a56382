"""timeout and shield: a block of code with a time limit, and one that no cancellation enters.

The idea.  Every blocking operation has a ``timeout=`` of its own.  A limit for several of them together, or for code
that does not pass a time-out on, is a block::

    with gort.timeout(2):
        request = conn.recv()
        reply = jobs.send(request)

Both are thin: a `Scope` (runtime/scope.py) that a timer ends, and a `Shield`.  What the three users of scopes have in
common stands here too: `leave`, how a block's end turns its own `Cancelled` into the error that its user expects.

Invariants.
- The block raises TimeoutError only if it was this block's limit that ended it.  A limit that is over while the last
  operation succeeds, or while the block computes without waiting, changes nothing: the operation has happened, its
  value is there, and the scope's end takes back the cancellation.
- Of two nested limits each ends its own block.  When both are over, the one whose exception was raised first ends its
  block; the outer one, if it came second, is raised at the next blocking operation in its own block.
- A block can be left by an exception *group* that has the scope's Cancelled in it, beside errors (a Group inside the
  block, see group.py).  Then the Cancelled is replaced in the group, and the errors stay: none is lost.

Refused: to raise TimeoutError at the end of a block that was late but not interrupted (it would throw away a result
that is there); a decorator form (a function with a ``with`` in it is as short).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .runtime import instance
from .runtime.scope import Scope, Shield
from .runtime.timers import INFINITY, check_seconds, deadline


class Timeout:
    """What `timeout` returns: a block with a time limit, to be used once in a ``with`` statement."""

    __slots__ = ("_entry", "_scope", "_seconds")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds if seconds is None else check_seconds(seconds)
        self._scope = Scope()
        self._entry: list[Any] | None = None

    @property
    def expired(self) -> bool:
        """Was the time over before the block ended?"""
        return self._scope.error is not None

    def _message(self) -> str:
        return f"the time limit of {self._seconds:g} s for this block is over"

    def _error(self) -> TimeoutError:
        return TimeoutError(self._message())

    def __enter__(self) -> Timeout:
        seconds = self._seconds
        scope = self._scope
        scope.enter("timeout()")
        if seconds is None:
            return self
        if seconds <= 0:
            scope.cancel(self._message(), here=True)
            return self
        when = deadline(seconds)
        if when != INFINITY:  # a timer that never rings would hide a deadlock
            self._entry = entry = [self, None, None]
            try:
                instance.timers_home().add_timer(when, entry, _over)
            except BaseException:
                scope.exit(None)
                raise
        return self

    def __exit__(self, _type: object, exc: BaseException | None, _tb: object) -> None:
        entry = self._entry
        if entry is not None and entry[0] is not None:
            entry[0] = None
            entry[2].dead += 1
        leave(self._scope, exc, self._error)

    def __repr__(self) -> str:
        return f"<gort.timeout {self._seconds} s{', expired' if self.expired else ''}>"


def _over(entry: list[Any]) -> None:
    """The timer's callback, in a hub.  Should the block end at this moment, `cancel` finds its scope inactive."""
    limit = entry[0]
    if limit is not None:
        entry[0] = None
        limit._scope.cancel(limit._message())


def timeout(seconds: float | None) -> Timeout:
    """A time limit for a block: ``with timeout(2): ...`` raises TimeoutError if the block is not over by then.

    When the time is over, the operation that the block waits in, or the next one that would wait, is given up, as
    `Goroutine.cancel` does it: it has not happened; ``finally`` blocks run.  A block that does not wait is not
    interrupted, and if it ends by itself no error is raised; ``as limit`` and `limit.expired` tell.  None: no limit;
    zero or less: nothing in the block waits.  On a plain thread too, which is interrupted in gort's operations only.
    Do not ``yield`` inside it: while a generator is suspended in the block, the limit is that of whoever runs the generator,
    and their wait is given up with `Cancelled`.  (So it is with contexts, groups, and other libraries' like.)  Go:
    context.WithTimeout.
    """
    return Timeout(seconds)


def shield() -> Shield:
    """A block that no cancellation enters: ``with shield(): ...``, for what must not be left half done.

    Cancellation of the goroutine, and of every time limit, context or group around the block, is held back until the
    block ends, and then delivered.  Blocks with a limit of their own work inside it: ``with shield(), timeout(5):``
    is a clean-up that takes 5 s at most.  Use it for short stretches: who cancels waits for it.  A second Ctrl-C is not
    held back.
    """
    return Shield()


def leave(scope: Scope, exc: BaseException | None, error: Callable[[], BaseException]) -> None:
    """End a scope's block that is left with exc (or None): raise error() in place of the scope's own Cancelled.

    Returns if exc is nothing of the scope's: then the caller's ``with`` lets it pass.
    """
    scope.exit(exc)
    own = scope.error
    if exc is None or own is None:
        return
    if exc is own:
        raise _because(error(), own)
    if isinstance(exc, BaseExceptionGroup):
        mine, rest = exc.split(lambda leaf: leaf is own)
        if mine is None:
            return
        if rest is None:
            raise _because(error(), own)
        new = rest.derive([_because(error(), own), *rest.exceptions])
        # It is the same group still, to whoever reads its traceback.
        for note in getattr(exc, "__notes__", ()):
            new.add_note(note)
        cause, context, suppress = exc.__cause__, exc.__context__, exc.__suppress_context__
        new.__cause__ = cause
        new.__suppress_context__ = suppress
        try:
            raise new.with_traceback(exc.__traceback__)
        finally:
            new.__context__ = context  # which is not what it replaces
            del new, exc, rest, mine, cause, context


def _because(error: BaseException, own: BaseException) -> BaseException:
    """Show with the error, as its cause, where the block was interrupted; unless it has a better cause."""
    if error.__cause__ is None:
        error.__cause__ = own
    return error
