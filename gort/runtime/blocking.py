"""blocking: a call that may block runs on a spare thread, and the goroutine parks.

The idea.  A call that gort knows to block (a file, a look-up, `waitpid`) must not hold a machine.  It is handed to a
spare machine: a thread with no P and no goroutines, which runs the call, hands back what came of it, and waits for the
next.  The last to become idle is the first to be used again, so that the others' idling adds up; after IDLE seconds of
it a thread ends.  Only the one that has idled longest looks at the clock, and when it ends it tells the next: ten thousand
that all woke up at the same moment took 30 s of CPU time to end.  There is no queue: as in Go each blocking call has a
thread, up to the limit (GORT_MAXTHREADS), and beyond it is an error that names the limit.

Cancelling.  A call under way cannot be stopped.  The goroutine therefore waits for its end even if it is cancelled
meanwhile, gets the result (an open file, say, which it can then close), and meets the cancellation at its next blocking
operation.  So nothing that the call opened is ever lost.

Who presses Ctrl-C a second time, because main has not come back from such a call, wants the program to end all the same:
then main leaves the call behind (`desert`), and what comes of it is thrown away.  It goes on meanwhile: a file that main
closes then may be written to by both.

The exception are calls whose result nobody need have, and that may take long: name look-ups, and waiting for the end of
another runtime (`inquire`, `join`).  A goroutine that is cancelled in one goes away at once.  The answer is thrown away when it
comes; the thread is then free again, and if the end of the program comes first, the end does not wait for it (it is a
daemon).

Ordering.  A spare is in `idle` or has exactly one job: it puts itself there under the pool's lock, after its job is
done, and is taken from there under the same lock.  Its wake-up is the release of its own OS lock, which cannot be
missed; what it then is to do is written down before that (a job, or `over`), and if there is nothing it has become the one
that looks at the clock.  That one is the leftmost of `idle`.  It stays that until it is taken out of there: by `submit`, only
when it is the last; by `dismiss_one` or itself, and then the next is told.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from time import monotonic
from typing import Any, TypeVar

from ..errors import ThreadLimit
from . import surplus
from .guard import PATIENCE
from .sleep import sleep
from .wait import ThreadWaiter, Ticket, park, ready, waiter

T = TypeVar("T")

IDLE = 10.0  # seconds after which an idle spare ends


class _Call:
    """The place where a goroutine waits for its call: either the call's end claims the ticket, or who deserts it."""

    __slots__ = ("abandoned", "fn", "once")

    external = True

    def __init__(self, fn: Any) -> None:
        self.fn = fn
        self.once = [None]  # whoever takes the item out decides; `pop` is atomic
        self.abandoned = False

    def ends(self) -> bool:
        """The call is over: does its caller still wait for it?"""
        try:
            self.once.pop()
            return True
        except IndexError:
            return False

    def withdraw(self, ticket: Ticket) -> bool:
        return False

    def desert(self, ticket: Ticket) -> bool:
        """`withdraw`, for one who insists."""
        if not self.ends():
            return False
        ticket[0] = None
        self.abandoned = True
        return True

    def reason(self, _ticket: Ticket) -> str:
        return f"blocking call: {getattr(self.fn, '__qualname__', self.fn)!s}"


class _Inquiry(_Call):
    """The same for a call that may be abandoned by anybody."""

    __slots__ = ()

    withdraw = _Call.desert


class _Join(_Inquiry):
    """The same for the end of another runtime: that depends on its goroutines, not on the outside (deadlock.py)."""

    __slots__ = ()

    external = False

    def reason(self, _ticket: Ticket) -> str:
        return "the end of another Runtime"


class _Spare:
    __slots__ = ("job", "note", "over", "thread")

    def __init__(self, job: Any) -> None:
        self.job = job
        self.over = False
        self.note = threading.Lock()
        self.note.acquire()
        self.thread: threading.Thread | None = None

    def wake(self) -> None:
        try:
            self.note.release()
        except RuntimeError:
            pass  # it is awake already, or about to be


class Spares:
    """The spare threads of one scheduler."""

    def __init__(self, sched: Any) -> None:
        self.sched = sched
        self.lock = threading.Lock()
        self.idle: deque[_Spare] = deque()
        self.all: set[_Spare] = set()
        self.leaving: set[_Spare] = set()  # dismissed, and about to end: they count no longer
        self.closed = False
        self.started = 0

    def submit(self, ticket: Ticket, fn: Callable[..., Any], args: Any, kw: Any, ctx: Any) -> bool:
        """Have the call made, and the ticket claimed with (True, result) or (False, exception).

        False: the interpreter is on its way out and starts no more threads, so the caller must make the call itself.
        """
        job = (ticket, fn, args, kw, ctx)
        while True:
            with self.lock:
                if self.idle:
                    spare = self.idle.pop()
                    spare.job = job
                    spare.wake()
                    return True
                limit = self.sched.max_threads
                if self.sched.count_threads() < limit:
                    spare = _Spare(job)
                    self.all.add(spare)
                    self.started += 1
                    break
            # Without our lock: the scheduler's comes first, where both are taken.
            if not surplus.dismiss_one(self.sched):
                raise ThreadLimit(
                    f"a blocking call needs another thread, but all {limit} are in use: raise GORT_MAXTHREADS, "
                    "or bound how many calls go on at once (a Chan as semaphore, say)"
                )
        spare.thread = threading.Thread(target=self._loop, args=(spare,), name=f"gort-spare{self.started}", daemon=True)
        try:
            spare.thread.start()
        except RuntimeError as exc:
            with self.lock:
                self.all.discard(spare)
            if "shutdown" in str(exc):
                return False
            raise ThreadLimit(f"a blocking call needs another thread, and the system does not allow one: {exc}") from exc
        return True

    def _loop(self, spare: _Spare) -> None:
        while True:
            ticket, fn, args, kw, ctx = spare.job
            try:
                outcome = (True, ctx.run(fn, *args, **kw))
            except BaseException as exc:
                tb = exc.__traceback__
                outcome = (False, exc.with_traceback(tb.tb_next if tb is not None else None))
            w = None
            if ticket[2].ends():
                w = ticket[0]
                ticket[1] = outcome
                ticket[0] = None
            spare.job = fn = args = kw = ctx = outcome = None  # type: ignore[assignment]
            with self.lock:
                over = self.closed
                first = not self.idle
                if not over:
                    self.idle.append(spare)
            if w is not None:
                ready(w)
            w = ticket = None
            if over or not self._next(spare, first):
                with self.lock:
                    self.all.discard(spare)
                    self.leaving.discard(spare)
                return

    def _next(self, spare: _Spare, first: bool) -> bool:
        """Wait for a job.  False: none came for long, or there will be none.  first: it is the one to look at the clock."""
        end = monotonic() + IDLE
        while True:
            woken = spare.note.acquire(timeout=max(0.0, end - monotonic()) if first else -1)
            if spare.job is not None:
                return True
            with self.lock:
                if spare.over:
                    return False
                first = bool(self.idle) and self.idle[0] is spare
                if first and not woken:
                    self._dismiss_first()
                    return False
            # Else it has become the first; or a job was given to it at the last moment, and the wake-up is on its way.

    def _dismiss_first(self) -> _Spare:
        """Under the lock."""
        spare = self.idle.popleft()
        spare.over = True
        self.all.discard(spare)
        self.leaving.add(spare)
        if self.idle:
            self.idle[0].wake()  # to look at the clock
        return spare

    def dismiss_one(self) -> bool:
        """End an idle spare, because a machine needs a thread and the limit is reached."""
        if not self.lock.acquire(timeout=PATIENCE):
            return False  # we are a finalizer, perhaps, that has interrupted its holder
        try:
            if not self.idle:
                return False
            self._dismiss_first().wake()
        finally:
            self.lock.release()
        return True

    def busy(self) -> int:
        """How many calls are under way."""
        return len(self.all) - len(self.idle)

    def close(self) -> None:
        """End the idle threads; those that are busy end after their call."""
        with self.lock:
            self.closed = True
            idle, self.idle = self.idle, deque()
            for spare in idle:
                spare.over = True
        for spare in idle:
            spare.wake()

    def forget(self) -> None:
        """In the child of a fork: they have stayed behind."""
        self.lock = threading.Lock()
        self.idle.clear()
        self.all.clear()
        self.leaving.clear()
        self.closed = True

    def threads(self) -> list[threading.Thread]:
        """Those that the end waits for: all but those in a call that its caller has abandoned."""
        found = []
        with self.lock:
            for spare in self.all | self.leaving:
                job = spare.job
                if spare.thread is not None and (job is None or not job[0][2].abandoned):
                    found.append(spare.thread)
        return found


def blocking(fn: Callable[..., T], /, *args: Any, **kw: Any) -> T:
    """Call fn(*args, **kw) on a spare thread while the goroutine parks; return or raise what it does.

    For calls that block in a way gort cannot see: a C library, a slow file system.  The call has a copy of the
    goroutine's context.  A cancellation waits for the end of the call, and so does Ctrl-C; a second one does not.  On a
    plain thread it is just a call.  Raises ThreadLimit when GORT_MAXTHREADS calls are under way.  Go: what every system
    call does by itself.
    """
    if not callable(fn):
        raise TypeError(f"blocking needs a function to call, not {type(fn).__name__}")
    return _call(_Call, fn, args, kw)


def inquire(fn: Callable[..., T], /, *args: Any, **kw: Any) -> T:
    """`blocking` for a call that only asks (a name look-up): a cancellation does not wait for it, nor does the end.

    What the call returns, or raises, when nobody waits for it any more is thrown away.
    """
    return _call(_Inquiry, fn, args, kw)


def join(fn: Callable[[], None]) -> None:
    """`inquire` for fn() that waits for the end of another runtime."""
    _call(_Join, fn, (), {})


def _call(kind: type[_Call], fn: Callable[..., T], args: Any, kw: Any) -> T:
    w = waiter()
    if type(w) is ThreadWaiter:
        return fn(*args, **kw)
    ticket: Ticket = [w, None, kind(fn), None]
    sched = w.m.sched
    settled = False
    while True:
        try:
            if not sched.spares.submit(ticket, fn, args, kw, copy_context()):
                return fn(*args, **kw)
            break
        except ThreadLimit:
            if settled:
                raise
        if not surplus.settling(sched):
            settled = True  # perhaps since a moment ago: try once more
            continue
        sleep(1e-3)  # then that machine is idle, and its thread can be had, or it has work, and the limit is what it says
    good, value = park(w, ticket)
    if good:
        return value
    try:
        raise value
    finally:
        value = None
