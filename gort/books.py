"""The books of contexts: who is to be told when one ends.

The idea.  A context that nobody listens to costs nothing: it has no timer, and its parent does not know of it; whether
it has ended is seen when it is asked (`_look`).  Listeners are a ``with`` block until it is left, an `after_func` until
it is stopped, a `done` channel for good (who waits at it sees to the time first: `_Done.prepare`), and a child that has
listeners itself.  With its first listener a context enters its parent's books, with its last it leaves them (`_listen`,
`_unlisten`).  As long as it has any, a timer rings at its deadline: one in each runtime that listens, for a runtime may
end, and a context be used in the next.  So whoever is listened to is held by whatever can end it, and nothing else is
held by anybody.

Invariants, under the tree's lock.
- A context is in its parent's listeners if and only if it has listeners itself and has not ended.
- One that has ended has no listeners and no timer.
- Of two reasons the earlier one counts: before it is cancelled, a context looks whether its deadline is over, and a
  parent's deadline is looked at before a child's.

The listeners are told after the lock has been given back: a parent's before its children's, so that of two nested
blocks, one under the parent, one under the child, the outer one is left.  Each listener is told once, by whoever took
it out of the books.  That order decides every race: a listener that comes later finds the context ended; one that
leaves earlier is not told; one that leaves while it is being told has to bear it (a `Scope` that has been left takes no
cancellation).

Refused: parents that hold children weakly (then a context with only its `done` channel in use would be collected and
never end); one lock for all contexts (trees have nothing to do with each other: each has its own).
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any
from weakref import WeakSet

from .errors import ContextCancelled, DeadlineExceeded
from .runtime import instance
from .runtime.fork import free, in_child
from .runtime.timers import INFINITY


class End:
    """When and why a context ended; shared by all that ended with it."""

    __slots__ = ("cause", "kind", "message", "when")

    def __init__(self, kind: type[ContextCancelled], message: str, cause: BaseException | None, when: float) -> None:
        self.kind = kind
        self.message = message
        self.cause = cause
        self.when = when

    def error(self) -> ContextCancelled:
        """A new exception each time: it is raised in several goroutines, each with a traceback of its own."""
        error = self.kind(self.message, self.cause)
        error.__cause__ = self.cause
        return error


_locks: WeakSet[Any] = WeakSet()  # of all trees


def new_lock() -> Any:
    """The lock of a new tree."""
    lock = threading.RLock()
    _locks.add(lock)  # 0.4 us, and only the root of a tree pays it
    return lock


def _in_child() -> None:
    """After a fork: whoever held a tree's lock has stayed behind, if it was not the one that forked."""
    for lock in list(_locks):
        free(lock)


in_child(_in_child)


class Books:
    """What can end, and keeps books: the part of `CancelContext` that only this package sees."""

    __slots__ = ()

    _above: Books | None  # whose end ends this one
    _cause: BaseException | None  # of the deadline
    _deadline: float
    _end: End | None
    _listeners: dict[Any, None]
    _lock: Any  # the tree's
    _timers: dict[Any, list[Any]]  # by the scheduler that each is planned in

    # `told` collects (listener, end) for after the lock.

    def _look(self) -> End | None:
        """How it ended, or None: also if nobody has noticed yet that its deadline is over."""
        if self._end is not None:
            return self._end
        told: list[Any] = []
        with self._lock:
            end = self._due(told)
        tell(told)
        return end

    def _due(self, told: list[Any]) -> End | None:
        """Take note of what is over: its own deadline, its ancestors' and their ends.  Under the lock."""
        line = []
        ctx: Books | None = self
        while ctx is not None and ctx._end is None:
            line.append(ctx)
            ctx = ctx._above
        end = None if ctx is None else ctx._end
        now = -INFINITY if self._deadline == INFINITY else monotonic()
        for ctx in reversed(line):
            if ctx._end is None and (end is not None or ctx._deadline <= now):
                ctx._finish(end, told)
            end = ctx._end
        return end

    def _finish(self, end: End | None, told: list[Any]) -> None:
        """It ends (None: because its deadline is over), and every descendant in the books.  Under the lock."""
        if self._above is not None:
            self._above._unlisten(self)
        family = [(self, end)]
        for ctx, end in family:  # grows: parents before their children
            if end is None or ctx._deadline < end.when:
                end = End(DeadlineExceeded, "the context's deadline is over", ctx._cause, ctx._deadline)
            ctx._end = end
            ctx._stop_timers()
            listeners, ctx._listeners = ctx._listeners, {}
            for listener in listeners:
                if isinstance(listener, Books):
                    family.append((listener, end))
                else:
                    told.append((listener, end))

    def _listen(self, listener: Any) -> End | None:
        """Have the listener told of the end; if that is over already, return it instead."""
        told: list[Any] = []
        with self._lock:
            end = self._due(told)
            if end is None:
                self._enlist(listener)
                # The lock keeps out other threads, but not a signal handler on this one, which may have come after the
                # first look.
                end = self._due(told)
                if end is not None:
                    self._unlisten(listener)
                    told = [(other, why) for other, why in told if other is not listener]
        tell(told)
        if end is None:
            try:
                self._keep_time()
            except BaseException:
                self._unlisten(listener)
                raise
        return end

    def _enlist(self, listener: Any) -> None:
        ctx: Books | None = self
        while ctx is not None:
            ctx._listeners[listener] = None
            if len(ctx._listeners) > 1:
                return  # it is in its parent's books already
            listener, ctx = ctx, ctx._above

    def _keep_time(self) -> None:
        """See to it that the caller's scheduler rings when a deadline is over, as long as anybody listens."""
        if self._deadline == INFINITY:
            return
        sched = instance.timers_home()
        timers: list[tuple[Books, list[Any]]] = []
        with self._lock:
            ctx: Books | None = self
            while ctx is not None:
                above = ctx._above
                # One that ends no earlier than its parent needs no timer of its own.
                own = ctx._deadline != INFINITY and (above is None or ctx._deadline < above._deadline)
                if own and ctx._listeners and sched not in ctx._timers:
                    for other in [other for other in ctx._timers if other.closed]:
                        del ctx._timers[other]
                    entry: list[Any] = [ctx, None, None]
                    ctx._timers[sched] = entry
                    timers.append((ctx, entry))
                ctx = above
        try:
            for owner, timer in timers:  # not under the lock: this may start a thread
                sched.add_timer(owner._deadline, timer, _ring)
                if timer[0] is None:  # stopped before it was planned
                    timer[2].dead += 1
        except BaseException:
            with self._lock:
                for owner, timer in timers:
                    if owner._timers.get(sched) is timer:
                        del owner._timers[sched]
            raise

    def _unlisten(self, listener: Any) -> bool:
        """Take a listener out of the books; was it there?"""
        found = False
        with self._lock:
            ctx: Books | None = self
            while ctx is not None and ctx._listeners.pop(listener, ctx) is None:
                found = True
                if ctx._listeners:
                    break
                ctx._stop_timers()
                listener, ctx = ctx, ctx._above
        return found

    def _stop_timers(self) -> None:
        timers, self._timers = self._timers, {}
        for timer in timers.values():
            if timer[0] is not None:
                timer[0] = None
                if timer[2] is not None:
                    timer[2].dead += 1


def _ring(timer: list[Any]) -> None:
    """A deadline is over.  In a hub, so it must not wait; whoever looks, sees it, and this looks."""
    ctx = timer[0]
    if ctx is not None:
        timer[0] = None
        ctx._look()


def tell(told: list[Any]) -> None:
    """Tell each of these listeners of its end.  Without the lock."""
    for listener, end in told:
        listener.tell(end)
