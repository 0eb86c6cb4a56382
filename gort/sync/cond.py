"""Cond: wait, without a mutex, for something that is protected by it.

The idea.  A condition variable has no state but its queue of waiters.  `wait` puts its ticket into the queue, *then*
unlocks the mutex, then parks.  So who changes the condition under the mutex and notifies afterwards finds the ticket:
a notification cannot fall between the look at the condition and the wait.  Which is why the mutex need not be held
for `notify`.

`wait` ends with the mutex locked, always, also by an exception: the ``with`` block around it is going to unlock it.
So locking it again must not be interrupted, and every cancellation is held back for that moment (`Shield`).  What
remains is a deadlock found while the mutex is never unlocked by its holder: then there is no mutex to be had, and
that error comes out without it.

Waiters are notified first come, first served.  One who was notified does return from `wait`; one who was cancelled
or timed out has not been notified, and the notification goes to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol, TypeVar

from ..errors import GortError
from ..runtime.scope import Shield
from ..runtime.timers import check_seconds, deadline
from ..runtime.wait import Ticket, is_late, late, park, ready, waiter
from .mutex import Mutex
from .place import Place

T = TypeVar("T")


class Locker(Protocol):
    """What a `Cond` needs of its lock: a Mutex, an RWMutex, and both sides of an RWMutex have it.  Go: sync.Locker."""

    def lock(self) -> None: ...

    def unlock(self) -> None: ...


def relock(lock: Callable[[], Any]) -> None:
    """Call lock(), the last thing that a `wait` does, until it has done its work, whatever comes; see the top."""
    interrupted: BaseException | None = None
    with Shield():
        while True:
            try:
                lock()
                break
            except GortError:
                raise  # Deadlock: see the top
            except BaseException as exc:
                if type(exc) is type(interrupted) or hasattr(exc, "insists"):
                    raise  # this lock cannot be locked; or it is the second Ctrl-C
                interrupted = exc  # a plain thread's signal handler: not before the lock is locked
    if interrupted is not None:
        raise interrupted


class Cond(Place):
    """A condition variable: wait for a condition that is protected by a lock.

    lock is a Mutex (made if none is given), or anything with `lock` and `unlock`.  ``with cond:`` locks and unlocks
    it.  Wait in a loop, or with `wait_for`: when the waiter has the lock again, the condition may have changed again.
    Go: sync.Cond.

        with cond:
            while not items:
                cond.wait()
            item = items.popleft()
    """

    __slots__ = ("_lock",)

    def __init__(self, lock: Locker | None = None) -> None:
        super().__init__()
        if lock is None:
            lock = Mutex()
            lock._code, lock._lasti = self._code, self._lasti  # for people, it was made where we were
        for name in ("lock", "unlock"):
            if not callable(getattr(lock, name, None)):
                raise TypeError(f"a Cond needs a lock with lock() and unlock(), not {type(lock).__name__}")
        self._lock = lock

    @property
    def L(self) -> Any:  # noqa: N802  (Go's name)
        """The lock.  Go: Cond.L."""
        return self._lock

    def lock(self) -> None:
        """Lock the lock."""
        self._lock.lock()

    def unlock(self) -> None:
        """Unlock the lock."""
        self._lock.unlock()

    def __enter__(self) -> None:
        self._lock.lock()

    def __exit__(self, _type: object, _value: object, _tb: object) -> None:
        self._lock.unlock()

    def wait(self, timeout: float | None = None) -> None:
        """Unlock the lock, wait for a notification, lock the lock again.  Call it with the lock locked.

        timeout is in seconds, None: for ever, 0: do not wait (nor unlock).  Raises TimeoutError, and SyncError if
        the lock is not locked.  Whatever it raises, the lock is locked again; but not when somebody presses Ctrl-C a
        second time while another has it, nor by Deadlock, if whoever has it never unlocks it.  Go: Cond.Wait.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
            if timeout <= 0:
                raise late(f"wait for {self!r}: no time to wait for a notification")
        w = waiter()
        ticket: Ticket = [w, None, self, None]
        latch = self._hold()
        self._enqueue(ticket)
        latch.append(None)
        try:
            self._lock.unlock()
        except BaseException:
            if not self.withdraw(ticket):
                # Notified in these microseconds, so the wake-up must be taken, and the notification be passed on.
                park(w, ticket)
                self.notify()
            raise
        try:
            park(w, ticket, timeout, "wait for a Cond")
        finally:
            self._relock()

    def _relock(self) -> None:
        """Lock the lock again, whatever comes."""
        lock = self._lock
        if type(lock) is not Mutex or not lock._take():
            relock(lock.lock)

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until predicate(), called with the lock locked, is true; return what it returned.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError if it is false when that is over.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        until = None
        left = timeout
        while not (value := predicate()):
            if timeout is not None:
                if until is None:
                    until = deadline(timeout)
                else:
                    left = until - monotonic()
                if left is None or left <= 0:
                    raise late(f"wait for {self!r}: the condition was still false after {timeout:g} s")
            try:
                self.wait(left)
            except TimeoutError as exc:
                if not is_late(exc):
                    raise
                # The last look at the condition is ours.
        return value

    def notify(self, n: int = 1) -> None:
        """Wake the n that have waited longest (fewer, if fewer wait).  The lock need not be locked.

        Go: Cond.Signal.
        """
        if not isinstance(n, int) or isinstance(n, bool):
            raise TypeError(f"n must be a whole number of waiters, not {type(n).__name__}")
        woken = []
        latch = self._hold()
        queue = self._queue
        if queue:
            while n > 0 and (w := queue.claim()) is not None:
                woken.append(w)
                n -= 1
        latch.append(None)
        for w in woken:
            ready(w)

    def notify_all(self) -> None:
        """Wake all who wait.  The lock need not be locked.  Go: Cond.Broadcast."""
        woken: list[Any] = []
        latch = self._hold()
        if self._queue:
            woken = self._queue.claim_all()
        latch.append(None)
        for w in woken:
            ready(w)

    def signal(self) -> None:
        """`notify` under its Go name: wake the one that has waited longest."""
        self.notify()

    broadcast = notify_all

    def give_back(self, ticket: Ticket) -> None:
        """A plain thread was notified and then interrupted (runtime/wait.py)."""
        self.notify()

    def __repr__(self) -> str:
        return f"<Cond {self._waiting()} waiting, {self._made()}>"
