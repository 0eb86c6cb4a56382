"""G, the goroutine: what `go` returns.

The idea.  Until it runs, a goroutine is a function and its arguments, nothing more, and so any machine may start it.
A carrier (see carrier.py) takes it, runs it to its end, and writes the outcome here.  A million finished goroutines
are a million of these small objects and no stacks.

States: *runnable* (waits to be started, or to go on), *running*, *waiting* (with a reason), *dead*.  No state is
stored: it follows from `_value` (PENDING until the end), from the carrier and from the carrier's ticket, so the
scheduler never pays for keeping it.

The end and those who wait for it.  The carrier stores the outcome, then looks at `_waiters`.  A joiner, under
`_joins`, adds its ticket to `_waiters`, then looks at the outcome.  Whichever comes second sees what the first did,
so no joiner is left behind: that is plain program order with a GIL.  Without one, a store followed by a load of
something else may be reordered, so there the carrier takes `_joins` as well (`finish_locked`).
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from contextvars import Context
from types import CodeType
from typing import Any, Generic, TypeVar

from greenlet import GreenletExit, getcurrent

from ..errors import Cancelled, GortError, GoroutineCancelled
from . import wait
from .report import Unasked
from .timers import check_seconds

T = TypeVar("T")

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


class _Mark:
    """A value that no program can have."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


PENDING: Any = _Mark("PENDING")
FAILED: Any = _Mark("FAILED")

next_id = itertools.count(1).__next__
_joins = threading.RLock()


def place_of(code: CodeType | None, lasti: int) -> str:
    """"file:line in function" for an instruction offset of a code object."""
    if code is None:
        return "an unknown place"
    line: int | None = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= lasti < end and number is not None:
            line = number
            break
    return f"{code.co_filename}:{line} in {code.co_qualname}"


class Goroutine(Generic[T]):
    """A goroutine started by `go`: a handle to wait for it, to get its result and to cancel it.

    Go has no such handle; the nearest are a goroutine's number in a stack dump and sync.WaitGroup.
    """

    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_code",
        "_exc",
        "_held",
        "_lasti",
        "_more",
        "_name",
        "_scope",
        "_shields",
        "_tb",
        "_unasked",
        "_value",
        "_waiters",
        "args",
        "carrier",
        "ctx",
        "fn",
        "id",
        "kw",
    )

    def __init__(
        self, fn: Callable[..., T], args: Any, kw: Any, ctx: Context | None, code: CodeType | None, lasti: int
    ) -> None:
        self.fn = fn
        self.args = args
        self.kw = kw
        self.ctx = ctx
        self._code = code
        self._lasti = lasti
        self.id: int = next_id()
        self._value: Any = PENDING
        self._waiters: list[Any] | None = None
        self.carrier: Any = None

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name for people: its function's, unless assigned."""
        try:
            return self._name
        except AttributeError:
            pass
        try:
            fn = getattr(self.fn, "func", self.fn)  # functools.partial
            return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)
        except Exception:  # a callable that answers every question with an error
            return type(self.fn).__qualname__

    @name.setter
    def name(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"a goroutine's name must be a str, not {type(value).__name__}")
        self._name = value

    @property
    def state(self) -> str:
        """"runnable", "running", "waiting" or "dead", as seen at this moment."""
        if self._value is not PENDING:
            return "dead"
        carrier = self.carrier
        if carrier is None:
            return "runnable"
        if carrier.waits():
            return "waiting"
        return "running" if carrier.runs() else "runnable"

    @property
    def wait_reason(self) -> str:
        """What it waits for ("" when it does not wait)."""
        carrier = self.carrier
        return "" if carrier is None or self._value is not PENDING else carrier.wait_reason()

    @property
    def started_at(self) -> str:
        """Where its `go` was: "file:line in function"."""
        return place_of(self._code, self._lasti)

    def describe(self) -> str:
        """One line for messages: number, name, and where it was started."""
        return f"goroutine {self.id} {self.name!r} (started at {self.started_at})"

    def __repr__(self) -> str:
        reason = self.wait_reason
        return f"<Goroutine {self.id} {self.name!r} {self.state}{f': {reason}' if reason else ''}>"

    # -- its end ------------------------------------------------------------------------------------------------

    def done(self) -> bool:
        """Has it ended?"""
        return self._value is not PENDING

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, however it ended.

        timeout is in seconds, None: for ever.  Raises TimeoutError when it is over first, and GortError when a
        goroutine would wait for itself.  Go: sync.WaitGroup.Wait.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if self._value is PENDING:
            self._join(timeout)

    def result(self, timeout: float | None = None) -> T:
        """Wait for its end; return what its function returned, or raise what it raised.

        timeout is in seconds, None: for ever.  Raises TimeoutError when it is over first, GoroutineCancelled if the
        goroutine was cancelled.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if self._value is PENDING:
            self._join(timeout)
        value = self._value
        if value is FAILED:
            self._asked()
            errors = errors_of(self._exc)
            if errors is None:
                raise GoroutineCancelled(f"{self.describe()} was cancelled and has no result")
            raise errors.with_traceback(self._tb)
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for its end; return the exception it ended with, or None.

        timeout is in seconds, None: for ever.  Raises TimeoutError when it is over first.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if self._value is PENDING:
            self._join(timeout)
        if self._value is not FAILED:
            return None
        self._asked()
        return self._exc

    def cancel(self) -> bool:
        """Ask it to end: `Cancelled` is raised in it at its next blocking operation (at once, if it waits now).

        It is raised once, however often one cancels, so that ``finally`` blocks may block.  A goroutine that has not
        started yet never runs.  Does not wait; use `join` for that.  Returns False if it had already ended.  From any
        thread.  Go: context.CancelFunc.
        """
        if self._value is not PENDING:
            return False
        while True:
            if self.carrier is None:
                # Not started.  Only the function is replaced, by one that takes any arguments, so that a carrier that
                # is picking it up now sees a whole call either way; and it stores `carrier` before it reads `fn`, while
                # we store `fn` before we read `carrier`, so one of us sees the other.
                self._name = self.name
                self.fn = _cancelled_before_start
            carrier = self.carrier
            if carrier is None:
                return True
            carrier.m.request(self, Cancelled(f"{self.describe()} was cancelled"))
            if self.carrier is carrier:  # else its thread could not be started after all: apart.py
                return True

    # -- inside -------------------------------------------------------------------------------------------------

    def _join(self, timeout: float | None) -> None:
        w = wait.waiter()
        mine = getcurrent()
        if self.carrier is not None and self.carrier in (mine, getattr(mine, "carrier", None)):
            raise GortError(f"{self.describe()} waits for itself, which would never end: join it from another goroutine")
        ticket = [w, None, self, None]
        with _joins:
            if self._value is not PENDING:
                return
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(ticket)
            if self._value is not PENDING:  # it ended meanwhile, and may or may not have seen our ticket
                if ticket[0] is not None:
                    ticket[0] = None
                    self._waiters.remove(ticket)
                    return
        if timeout is not None and timeout <= 0:
            if self.withdraw(ticket):
                raise wait.late(f"{self.describe()} has not ended yet")
            timeout = None
        wait.park(w, ticket, timeout, "join")

    def withdraw(self, ticket: wait.Ticket) -> bool:
        """Take back a joiner's ticket that nobody has claimed yet; was it so?  For the runtime (wait.py)."""
        with _joins:
            if ticket[0] is None:
                return False
            ticket[0] = None
            waiters = self._waiters
            if waiters is not None:
                self._waiters = [other for other in waiters if other is not ticket] or None
            return True

    def reason(self, ticket: wait.Ticket) -> str:
        """What a joiner waits for, for people.  For the runtime (wait.py)."""
        return f"join of goroutine {self.id}"

    def _asked(self) -> None:
        try:
            self._unasked.exc = None
        except AttributeError:
            pass

    def wake_joiners(self) -> None:
        """The end has come, and somebody waits for it."""
        with _joins:
            tickets, self._waiters = self._waiters or [], None
            woken = [ticket[0] for ticket in tickets if ticket[0] is not None]
            for ticket in tickets:
                ticket[0] = None
        for w in woken:
            wait.ready(w)

    def finish_locked(self, value: Any) -> None:
        """`_value = value`, then look at `_waiters`: for free-threaded builds, where the lock orders the two."""
        with _joins:
            self._value = value
            waiting = self._waiters is not None
        if waiting:
            self.wake_joiners()

    def fail(self, exc: BaseException, sched: Any) -> None:
        """Keep the exception its function raised; the caller then finishes with FAILED.  Never raises.

        A cancellation in an exception group beside errors was for this goroutine alone: `result` leaves it out.
        """
        tb = BaseException.__traceback__.__get__(exc)  # likewise: `exc.__traceback__` may be a property that raises
        if tb is not None:
            tb = tb.tb_next  # leave out the carrier's own frame
            # Not by assignment: an exception class may forbid that, by a frozen dataclass for example.
            BaseException.with_traceback(exc, tb)
        self._tb = tb
        self._exc = exc
        errors = errors_of(exc)
        if errors is None or isinstance(exc, SystemExit) or (sched is not None and sched.main is self):
            return  # `run` always asks main
        if sched is not None and sched.closing and consists_of(exc, tuple(CANCELLATIONS)):
            return  # it asked for the result of what the end has cancelled, and would have been cancelled next
        if isinstance(exc, KeyboardInterrupt) and getattr(exc, "raised", False):
            return  # a Ctrl-C of gort's own making (interrupt.py): main is told as well
        label = self.describe()
        try:
            errors.add_note(f"In {label}")
        except Exception:
            pass  # likewise; the report names the goroutine anyway
        self._unasked = Unasked(errors, label, sched)


ENDS = (Cancelled, GreenletExit)  # what ends a goroutine that is not to go on
# What says that something was cancelled: code above the runtime adds what others' futures say.
CANCELLATIONS: list[type[BaseException]] = [*ENDS, GoroutineCancelled]


def consists_of(exc: BaseException, kinds: Any) -> bool:
    """Is it an exception of these classes, or an exception group of nothing else?"""
    if isinstance(exc, BaseExceptionGroup):
        return all(consists_of(one, kinds) for one in exc.exceptions)
    return isinstance(exc, kinds)


def without(exc: BaseException, kinds: Any) -> BaseException | None:
    """What remains of it without the exceptions of these classes, at any depth of an exception group."""
    if isinstance(exc, kinds):
        return None
    # (A split that finds nothing gives a copy, and no longer the exception that others have seen.)
    return exc.split(kinds)[1] if isinstance(exc, BaseExceptionGroup) and exc.subgroup(kinds) is not None else exc


def errors_of(exc: BaseException) -> BaseException | None:
    """What of it is an error: None if it says only that its goroutine had to end.  Never raises.

    The same object each time: a Group tells by that that it has an error twice.
    """
    if not isinstance(exc, BaseExceptionGroup):
        return None if isinstance(exc, ENDS) else exc
    try:
        found: BaseException | None = exc.__dict__.get("_gort_errors", exc)
        if found is exc:
            found = without(exc, ENDS)
            if found is not exc:
                exc.__dict__["_gort_errors"] = found
        return found
    except Exception:  # the group's own `derive`
        return exc


def _cancelled_before_start(*args: Any, **kw: Any) -> None:
    raise Cancelled("cancelled before it started")
