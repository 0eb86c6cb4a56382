"""Group: goroutines that belong to a block and do not outlive it.

The idea.  ``with Group() as g:`` starts goroutines with ``g.go`` and is not left before all of them have ended.  The
first error, of a goroutine or of the block's own body, cancels the rest, and the body too; then all errors come out of
the block together, as one ExceptionGroup.  Go: golang.org/x/sync/errgroup; trio: nursery; asyncio: TaskGroup.

What is an error: every exception but a cancellation.  A goroutine that ends with `Cancelled` had to stop, whoever
wanted that, and the others go on.  So does GoroutineCancelled (from the result() of another goroutine) once the group
has been cancelled: it is the shadow of that cancellation, and in which goroutine it falls is chance.

What comes out of the block, in this order of precedence:
- errors, in the order in which they came, in one group: ExceptionGroup, or BaseExceptionGroup if there is one that is
  no Exception.  An exception that came twice (the body asked for the result of the goroutine that failed) stands there
  once;
- what came from outside for the owner, the goroutine that has the block: its own cancellation, a time limit's, a
  context's, Ctrl-C, Deadlock.  It cancels the goroutines and then goes on outwards as it is; beside errors, it is one
  of the group's exceptions, and the block it belongs to finds it there (cancel.py).  Of several cancellations the
  widest goes on, for it ends what the others would;
- nothing, and the block ends normally.

Invariants, when the latch is free ("alive" counts places that are taken, by goroutines and by those about to start):
- a goroutine is in `_children` from before it starts until after its outcome is stored; `alive == len(_children)`;
- somebody waits for a place only while `alive == limit`; a place that becomes free goes to the first who waits, without
  being free in between, so `alive` does not touch 0, and the block does not end, while somebody is about to start one;
- `_cancelled` is set once, and from then on every child has been, or is being, cancelled: who cancels sets it and reads
  `_children`; who starts one enters it there and reads `_cancelled`; both under the latch, so one sees the other.  To
  cancel a goroutine twice, or one that has ended, does nothing;
- the owner ends the group, or the last child does, on the owner's behalf, if the owner waits.  Under the latch too, so
  that a `go` either comes before, and is waited for, or finds the group ended.

The end of a child is seen from outside (sync/ending.py), not by a wrapper around its function: a goroutine that is
cancelled before it starts, or dropped by a runtime that closes, never runs a wrapper.

The owner's end, and why no cancellation is lost there, however many come and whenever.  The body is a `Scope`.  At the
block's end that scope is left first: from then on nothing of the group's own can interrupt the owner, and what was
meant for the body and not raised yet is taken back.  Then the owner waits; every exception that arrives in this wait
was sent to it once, by somebody outside, is kept, and the wait begins again.  A cancellation that comes when the last
child has already woken the owner is raised at the next wait after the block, as everywhere.  The wait ends, because each
scope and each cancellation raises once, and the children have been cancelled.  The one exception is Deadlock: if it
comes a second time, the children cannot end, and the owner leaves without them.

Refused: a context for every group (the children take part in the owner's cancellation by structure); errors through a
callback; leaving the block with one exception bare when it is the only one (a program would have to catch two ways).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from sys import _getframe
from typing import Any, Self, TypeVar

from greenlet import GreenletExit

from .errors import Cancelled, Deadlock, GoroutineCancelled, GortError
from .runtime import instance
from .runtime import overdue as _overdue
from .runtime.carrier import current
from .runtime.goroutine import FAILED, Goroutine, consists_of, errors_of, without
from .runtime.scope import Scope
from .runtime.scope import owner as scope_owner
from .runtime.wait import Ticket, give_way, park, ready, waiter
from .sync.ending import on_end
from .sync.place import Place, Tickets

T = TypeVar("T")

overdue = False
_overdue.register(globals())

NEW, OPEN, ENDED = "new", "open", "ended"
_NOTHING: Any = object()


class Group(Place):
    """A block that goroutines belong to: it is left when all of them have ended.

    ::

        with Group(limit=10) as g:
            handles = [g.go(fetch, url) for url in urls]
        pages = [h.result() for h in handles]

    The first error cancels the rest, and the body of the block; errors come out as one ExceptionGroup.  limit is how
    many goroutines of the group may exist at a time: `go` waits for a place.  Goroutines of the group may start more.
    On a plain thread all works but one thing: an error cannot interrupt the body, only what it waits for in the end.
    Raises ValueError unless limit is at least 1.
    """

    __slots__ = ("_alive", "_cancelled", "_children", "_errors", "_limit", "_owner", "_sched", "_scope", "_state")

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None:
            if not isinstance(limit, int) or isinstance(limit, bool):
                raise TypeError(f"limit must be a whole number or None, not {type(limit).__name__}")
            if limit < 1:
                raise ValueError(f"limit must be at least 1 (None: no limit), not {limit}")
        super().__init__()  # in `_queue` stand those who wait for a place
        self._limit = limit
        self._state = NEW
        self._alive = 0
        self._cancelled = False
        self._children: dict[Goroutine[Any], None] = {}
        self._errors: list[BaseException] = []
        self._owner = Tickets()  # the one who waits for the end
        self._scope: Scope | None = None
        self._sched: Any = None

    # -- for the program ------------------------------------------------------------------------------------------

    def go(self, fn: Callable[..., T], /, *args: Any, **kw: Any) -> Goroutine[T]:
        """Start fn(*args, **kw) as a goroutine of this group; wait for a place first, if there is a limit.

        From the body, from goroutines of the group, and from anywhere else while the block is open.  In a group that
        has been cancelled the goroutine is cancelled before it starts.  Raises GortError if the block has not begun
        or has ended.  Its errors come out of the block; result() gives them too.  Go: errgroup.Group.Go.
        """
        if overdue:
            give_way()
        instance._check_callable(fn, "Group.go")
        g: Any = self._start(fn, args, kw, _getframe(1), True)
        return g

    def map(self, fn: Callable[[Any], T], iterable: Iterable[Any]) -> Iterator[T]:
        """Call fn(item) in a goroutine of this group for each item; yield the results, in the items' order.

        Lazy: it starts nothing before the first result is asked for, and then takes items, and starts goroutines, up
        to limit ahead of what has been yielded (with no limit: all, so give a limit for an endless iterable).  An
        error ends the group, as always.  If the iterable raises, that comes after the results before it.  Leaving
        the iteration early cancels the goroutines whose results nobody has seen.
        """
        instance._check_callable(fn, "Group.map")
        return self._map(fn, iter(iterable), _getframe(1))

    def cancel(self) -> None:
        """Cancel all goroutines of the group, and the body if the block is still in it.

        That is no error: the block ends normally.  From anywhere; does not wait.
        """
        latch = self._hold()
        victims = self._cancel_locked()
        latch.append(None)
        self._cancel_all(victims)

    def __enter__(self) -> Self:
        g = current()
        scope = None if g is None else Scope()
        if self._state != NEW:
            raise GortError("this Group has been used already: make a new one for every with block")
        if scope is not None:
            scope.enter("Group")
        m = instance._machine()
        self._sched = instance._default() if m is None else m.sched
        self._scope = scope
        self._state = OPEN
        return self

    def __exit__(self, _type: object, exc: BaseException | None, _tb: object) -> bool:
        scope = self._scope
        if scope is not None:
            try:
                scope.exit(exc)
            except GortError as elsewhere:  # it is left by another goroutine: that is an error as any other
                exc = exc or elsewhere
        own = None if scope is None else scope.error
        outside: list[BaseException] = []  # what goes on outwards
        if exc is not None:
            self._sort_body(exc, own, outside)
        while not any(isinstance(one, GreenletExit) for one in outside):  # its greenlet is being destroyed: no wait
            try:
                self._wait()
                break
            except BaseException as other:
                if not isinstance(other, Cancelled) and any(type(one) is type(other) for one in outside):
                    break  # the children cannot end (Deadlock), or he who asks will not wait for them (Ctrl-C twice)
                outside.append(other)
            self.cancel()
        return self._come_out(exc, outside)

    def __repr__(self) -> str:
        limit = "" if self._limit is None else f" of at most {self._limit}"
        cancelled = ", cancelled" if self._cancelled else ""
        return f"<gort.Group {self._state}{cancelled}, {self._alive}{limit} goroutines, {self._made()}>"

    # -- children ---------------------------------------------------------------------------------------------------

    def _start(self, fn: Any, args: Any, kw: Any, frame: Any, wait: bool) -> Goroutine[Any] | None:
        """A new child.  None if there is no place for it, and wait is false."""
        g: Goroutine[Any] = Goroutine(fn, args, kw, copy_context(), frame.f_code, frame.f_lasti)
        if not self._admit(g):
            if not wait:
                return None
            self._queue_for_place(g)
        # The place is ours, and only the end of g gives it back; so nothing may fail between here and its start.
        on_end(g, lambda: self._child_ended(g))
        if self._cancelled:
            g.cancel()
        try:
            instance.launch(g, self._sched)
        except BaseException:  # its runtime is closed, or the system gives no thread
            g.cancel()
            self._leave(g)
            raise
        return g

    def _admit(self, g: Goroutine[Any], ticket: Ticket | None = None) -> bool:
        """Take a place for g if there is one; else leave the ticket in the queue."""
        latch = self._hold()
        state = self._state
        room = self._limit is None or self._alive < self._limit
        if state is OPEN:
            if room:
                self._alive += 1
                self._children[g] = None
            elif ticket is not None:
                self._enqueue(ticket)
        latch.append(None)
        if state is not OPEN:
            hint = "begin its block first: with Group() as g: g.go(...)" if state is NEW else "its block has ended"
            raise GortError(f"this Group cannot start a goroutine: {hint}")
        return room

    def _queue_for_place(self, g: Goroutine[Any]) -> None:
        w = waiter()  # raises a pending cancellation, so not under the latch
        ticket: Ticket = [w, g, self, None]
        if not self._admit(g, ticket):
            park(w, ticket, None, "Group.go")

    def _leave(self, g: Goroutine[Any], error: BaseException | None = None) -> None:
        """g is no child any more: it has ended (with this error), or could not start."""
        w = owner = victims = None
        latch = self._hold()
        if self._children.pop(g, self) is None:
            if error is not None and not (self._cancelled and consists_of(error, GoroutineCancelled)):
                self._errors.append(error)
                victims = self._cancel_locked()
            queue = self._queue
            ticket = queue.head() if queue is not None else None
            if queue is not None and ticket is not None:  # its place goes to the first who waits for one
                self._children[ticket[1]] = None
                w = queue.claim()
            else:
                self._alive -= 1
                if not self._alive:
                    owner = self._owner.claim()
                    if owner is not None:
                        self._state = ENDED
        latch.append(None)
        if w is not None:
            ready(w)
        if owner is not None:
            ready(owner)
        self._cancel_all(victims)

    def _child_ended(self, g: Goroutine[Any]) -> None:
        """Called where a child has ended, by the one who stored its outcome: must neither wait nor raise."""
        if g._value is FAILED:
            if self._state is OPEN:
                g._asked()  # the block's end reports it
            self._leave(g, errors_of(g._exc))
        else:
            self._leave(g)

    def _cancel_locked(self) -> list[Goroutine[Any]] | None:
        """Whom to cancel; None if that has been done.  Under the latch."""
        if self._cancelled:
            return None
        self._cancelled = True
        return list(self._children)

    def _cancel_all(self, victims: list[Goroutine[Any]] | None) -> None:
        if victims is None:
            return
        if self._scope is not None:
            self._scope.cancel("the body of a Group was cancelled: a goroutine of it failed, or cancel() was called")
        for g in victims:
            g.cancel()

    # -- the end ----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait until there is no child, and end the group.  Raises what is thrown at the owner meanwhile."""
        w = None
        while True:
            latch = self._hold()
            alive = 0 if self._sched.orphaned else self._alive  # after a fork there are no children here
            if not alive:
                self._state = ENDED
            elif w is not None:
                ticket: Ticket = [w, None, self, None]
                self._owner.append(ticket)
            latch.append(None)
            if not alive:
                return
            if w is not None:
                park(w, ticket, None, "the end of a Group")
                return  # claimed by the last child, which has ended the group
            w = waiter()

    def _sort_body(self, exc: BaseException, own: BaseException | None, outside: list[BaseException]) -> None:
        """The body was left with exc; own is what the group itself raised there.  Is it an error, or from outside?"""
        rest: BaseException | None = exc
        if exc is own:
            return
        if isinstance(exc, BaseExceptionGroup):
            outside += [leaf for leaf in _leaves(exc) if isinstance(leaf, Cancelled) and leaf is not own]
            rest = without(exc, Cancelled)
        elif isinstance(exc, Deadlock) or not isinstance(exc, Exception):
            outside.append(exc)  # or Cancelled, KeyboardInterrupt, GeneratorExit, SystemExit
            rest = None
        latch = self._hold()
        if self._cancelled and rest is not None and consists_of(rest, GoroutineCancelled):
            rest = None
        if rest is not None and not self._is_childs_stop(rest):
            self._errors.append(exc)
        victims = self._cancel_locked()
        latch.append(None)
        self._cancel_all(victims)

    def _is_childs_stop(self, exc: BaseException) -> bool:
        """Is it what Python makes of a child's StopIteration that came out of `map`?  Then the child's error says it."""
        cause = exc.__cause__
        return isinstance(exc, RuntimeError) and isinstance(cause, StopIteration) and any(e is cause for e in self._errors)

    def _come_out(self, exc: BaseException | None, outside: list[BaseException]) -> bool:
        """What the with statement does: raise, let the body's exception pass (False), or swallow it (True)."""
        latch = self._hold()
        self._state = ENDED
        found, self._errors = self._errors, []
        latch.append(None)
        once = {id(error): error for error in found}.values()
        errors = [rest for rest in (without(error, Cancelled) for error in once) if rest is not None]
        outside = self._widest(outside)
        if not errors and len(outside) <= 1:
            if not outside:
                return True
            if outside[0] is exc:
                return False
            raise outside[0]
        n = len(errors)
        text = f"{n} error{'s' if n > 1 else ''} in a Group" if n else "a Group was interrupted"
        raise BaseExceptionGroup(text, [*outside, *errors]) from None

    def _widest(self, outside: list[BaseException]) -> list[BaseException]:
        """Leave out the cancellations that end less than another does."""
        cancels = [one for one in outside if isinstance(one, Cancelled)]
        if len(cancels) < 2:
            return outside
        widest = next((one for one in cancels if one.scope is None), cancels[0])
        scope = None if widest.scope is None else getattr(scope_owner(), "_scope", None)
        while scope is not None:  # from the innermost block outwards
            widest = next((one for one in cancels if one.scope is scope), widest)
            scope = scope.parent
        return [one for one in outside if one is widest or not isinstance(one, Cancelled)]

    # -- map --------------------------------------------------------------------------------------------------------

    def _map(self, fn: Callable[[Any], T], items: Iterator[Any], frame: Any) -> Iterator[T]:
        window: deque[Goroutine[T]] = deque()
        item = _NOTHING
        failure: BaseException | None = None
        more = True
        try:
            while True:
                while more and (self._limit is None or len(window) < self._limit):
                    if item is _NOTHING:
                        try:
                            item = next(items)
                        except StopIteration:
                            more = False
                            break
                        except Exception as exc:
                            failure = exc
                            more = False
                            break
                    # Others may have all the places: then the results that we have come first.
                    g = self._start(fn, (item,), {}, frame, wait=not window)
                    if g is None:
                        break
                    window.append(g)
                    item = _NOTHING
                if not window:
                    break
                try:
                    value = window[0].result()
                except BaseException:
                    if failure is not None:  # the iterable's, which waited for its turn: it is not lost
                        latch = self._hold()
                        self._errors.append(failure)
                        latch.append(None)
                    raise
                window.popleft()
                yield value
            if failure is not None:
                raise failure
        finally:
            for g in window:
                g.cancel()

    # -- as a place where tickets wait: see sync/place.py ---------------------------------------------------------

    def _home(self, ticket: Ticket) -> Tickets:
        return self._owner if ticket[1] is None else super()._home(ticket)

    def give_back(self, ticket: Ticket) -> None:
        """A plain thread was interrupted after it had been given a place: pass that on."""
        if ticket[1] is not None:
            self._leave(ticket[1])

    def reason(self, ticket: Ticket) -> str:
        """What a waiter with this ticket waits for, for people."""
        if ticket[1] is not None:
            return f"a place in a Group (limit {self._limit})"
        return f"the end of a Group ({self._alive} goroutines)"


def _leaves(exc: BaseException) -> list[BaseException]:
    """The exceptions in a group, at any depth; the exception itself if it is none."""
    found = [exc]
    for one in found:
        if isinstance(one, BaseExceptionGroup):
            found += one.exceptions
    return [one for one in found if not isinstance(one, BaseExceptionGroup)]
