"""Mutex: mutual exclusion, with Go's two ways of passing it on.

The idea.  The permit to be inside is the one item of a deque of maximal length 1.  ``pop`` takes it, ``insert`` gives
it back; each is one atomic operation of CPython's deque, and each raises IndexError when it cannot be done.  So an
uncontended lock is one such call, an unlock another and one look at the queue of waiters, and an unlock of a mutex
that is not locked is found out however many threads race for it: there are never two permits.

Passing on.  As in Go, an unlock normally just gives the permit back and wakes the first waiter, who tries again
together with everybody else (*normal mode*).  The goroutine that is running anyway usually wins, which is what makes
a busy mutex fast: it may take it a thousand times in its time slice without a single switch.  The price is paid by
the waiter, so it is limited: one who has waited for a millisecond is handed the permit itself (*starvation mode*).
Go keeps the mode as a bit of the mutex; here it follows from the age of the first ticket, read when the mutex is
unlocked.  The queue is ordered by age: who tried again and lost stands where he stood before.

Nobody is forgotten.  The claim: if somebody waits, then whoever holds the permit will see him when he unlocks, or
somebody who was woken has yet to look.

- A waiter first puts his ticket into the queue, and *then* tries to take the permit once more.  An unlock first gives
  the permit back, and *then* looks at the queue.  Both touch the same deque, whose operations come one after the
  other (with a GIL, and on its own lock without one).  If that try comes after that insert, it finds the permit
  (unless somebody else was faster, who will unlock in his turn).  If it comes before, then so did the ticket, and the
  unlock sees it.
- Who is woken to try again leaves the queue and always tries first, even if he was cancelled or his time is over.  If
  he fails, somebody holds the permit and will look at the queue after giving it back, so giving up then takes nothing
  from those behind him.  If he succeeds, he will unlock himself.
- Every unlock that sees a waiter wakes one, also if another is on his way already (Go would not).  It costs a wake-up
  now and then, and nobody depends on a machine that is stuck in a long call.

Who waited a millisecond is handed the permit like this: the unlock gives it back, sees the queue, and takes it again
for him.  Another thread may slip in between, in a few hundred nanoseconds, once; then its unlock does the same.
To rule that out too, each unlock would have to look at the queue before as well (8 ns of 115): refused.

Refused: a `threading.Lock` as the permit (twice the price); the latch and a flag (1.2 to 1.8 times); a look and
``append`` instead of ``insert`` (10 ns more on 3.13; less on 3.11 and 3.12, but of two unlocks at the same moment it
may overlook the wrong one); a list as the permit (90 bytes instead of 700, but up to 20 ns more); spinning
before parking (a goroutine of the same machine could not run meanwhile, and that is whom one mostly waits for).
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from ..runtime import overdue as _overdue
from ..runtime.timers import check_seconds, deadline
from ..runtime.wait import Ticket, give_way, is_late, late, park, ready, waiter
from .errors import SyncError
from .place import Place

overdue = False
_overdue.register(globals())

STARVING = 1e-3  # seconds after which a waiter is not overtaken any more; Go's number
_FULL = (None,)


class Mutex(Place):
    """A lock: one goroutine or thread at a time is between `lock` and `unlock`.

    ``with mutex:`` locks and unlocks.  It belongs to no one: it may be unlocked by another than the one that locked
    it, and who locks it twice waits for himself.  Waiters are served first come, first served, except that a running
    goroutine may overtake one that has waited for less than a millisecond.  Go: sync.Mutex.
    """

    __slots__ = ("_permit",)

    _verb = "lock of"

    def __init__(self) -> None:
        super().__init__()
        self._permit: deque[None] = deque(_FULL, 1)

    # -- the hot ones: `with` repeats them, for a call is 35 ns of 115 --------------------------------------------

    def lock(self, timeout: float | None = None) -> None:
        """Wait until the mutex is free, and lock it.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError; the mutex is then not locked by
        the caller.  Go: Mutex.Lock.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if overdue:
            give_way()
        try:
            self._permit.pop()
            return
        except IndexError:
            pass  # and out of the handler, so that no later error drags this one along as its context
        self._lock_slowly(timeout)

    def unlock(self) -> None:
        """Unlock the mutex, and let a waiter go on.

        From any goroutine or thread.  Raises SyncError if it is not locked.  Go: Mutex.Unlock.
        """
        try:
            self._permit.insert(0, None)
        except IndexError:
            raise self._not_locked() from None
        if self._queue:
            self._pass_on()

    def __enter__(self) -> None:
        if overdue:
            give_way()
        try:
            self._permit.pop()
            return
        except IndexError:
            pass
        self._lock_slowly(None)

    def __exit__(self, _type: object, _value: object, _tb: object) -> None:
        try:
            self._permit.insert(0, None)
        except IndexError:
            raise self._not_locked() from None
        if self._queue:
            self._pass_on()

    # -- the others -----------------------------------------------------------------------------------------------

    def try_lock(self) -> bool:
        """Lock it if that needs no waiting; is it locked by the caller now?  Go: Mutex.TryLock."""
        if overdue:
            give_way()
        return self._take()

    def _take(self) -> bool:
        """`try_lock` without giving way, and so without an exception: where one gives way one may be cancelled."""
        try:
            self._permit.pop()
            return True
        except IndexError:
            return False

    def locked(self) -> bool:
        """Is it locked, by anybody, at this moment?"""
        return not self._permit

    def _not_locked(self) -> SyncError:
        return SyncError(f"unlock of unlocked {self!r}: unlock once for every lock, best by `with mutex:`")

    def _lock_slowly(self, timeout: float | None) -> None:
        """Wait for the permit."""
        left = timeout
        if timeout is not None and timeout <= 0:
            raise late(f"lock of {self!r}: somebody else has locked it")
        since = monotonic()
        until = None if timeout is None else deadline(timeout)
        again = False
        while True:
            w = waiter()
            ticket: Ticket = [w, False, self, None, since]
            latch = self._hold()
            if again:
                self._reenqueue(ticket)
            else:
                self._enqueue(ticket)
            try:
                self._permit.pop()  # once more, now that an unlock would see us
                ours = True
                ticket[0] = None
                self._home(ticket).bury()
            except IndexError:
                ours = False
            latch.append(None)
            if ours:
                return
            try:
                if park(w, ticket, left, "lock"):
                    return  # it was handed to us
            except TimeoutError as exc:
                if not is_late(exc):
                    raise
                raise self._timed_out(timeout) from None
            # Woken to try again; before anything else, see the top.
            try:
                self._permit.pop()
                return
            except IndexError:
                pass
            if until is not None:
                left = until - monotonic()
                if left <= 0:
                    raise self._timed_out(timeout)
            again = True

    def _timed_out(self, timeout: float | None) -> TimeoutError:
        return late(f"lock of {self!r} timed out after {timeout:g} s")

    def _reenqueue(self, ticket: Ticket) -> None:
        """Put back the ticket of one who tried again and lost: where its age belongs.  Under the latch."""
        queue = self._queue
        assert queue is not None
        index = 0
        for other in queue:
            if other[4] > ticket[4]:
                break
            index += 1
        queue.insert(index, ticket)

    def _pass_on(self) -> None:
        """The permit is back, and the queue was not empty: wake the first waiter, or hand him the permit."""
        w: Any = None
        latch = self._hold()
        queue = self._queue
        assert queue is not None
        ticket = queue.head()
        # If the permit has gone again already, its new holder's unlock will see to the waiters.
        if ticket is not None and self._permit:
            handed = monotonic() - ticket[4] > STARVING
            gone = False
            if handed:
                try:
                    self._permit.pop()
                except IndexError:
                    gone = True  # in this very moment
            if not gone:
                ticket[1] = handed
                w = queue.claim()
        latch.append(None)
        if w is not None:
            ready(w)

    def give_back(self, ticket: Ticket) -> None:
        """A plain thread was interrupted after it had been woken (runtime/wait.py)."""
        if ticket[1]:
            self.unlock()
        elif self._queue:
            self._pass_on()

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        return f"<Mutex {state}, {self._waiting()} waiting, {self._made()}>"
