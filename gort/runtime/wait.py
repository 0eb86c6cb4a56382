"""How a goroutine waits and is woken: tickets, park and ready.  This is the whole surface for what stands above.

The idea.  Whoever must wait writes a *ticket* and leaves it where the one who will wake it looks (a channel's queue,
a goroutine's list of joiners, a heap of timers).  A ticket is a plain list, because a list display is the cheapest
object there is::

    ticket = [waiter, value, place, race]

    waiter   who waits: something with `.ready`, `.m` and `.pending`.  None once somebody has claimed the ticket.
    value    what is handed over: a sender's value until it is taken, or the receiver's once it is given
    place    where it waits: an object with `withdraw(ticket) -> bool` and `reason(ticket) -> str`
    race     None, or (select) the object that decides which of several tickets wins

*Claiming* a ticket is setting ticket[0] to None under the place's lock, having seen that it was not None.  Exactly
one party does so: the one who completes the operation, or the one who gives up (a time-out, a cancel).  Whoever
claims must wake the waiter, by `ready` or `ready_throw`; whoever fails to claim must leave it alone.  A dead ticket
may stay in the queue: those who take from the queue skip it.

Park is then: publish the ticket under the place's lock; drop the lock; switch to whatever runs next on this machine.
Between drop and switch the waker may already have appended the waiter to its machine's ready queue.  That is no race:
only this machine's own thread takes from that queue, and it is still busy parking, so the waiter is found there later.
A waiter is in the ready queue at most once, since it has one live ticket and that is claimed once.

Waking another machine's waiter is ``w.ready.append(w); if w.m.asleep: w.m.wake()``.  The lost wake-up would be: the
machine looks at its queue (empty), we append, we read asleep (False), it goes to sleep.  It cannot be, because the
machine first stores asleep = True and then looks again *with popleft*, and popleft and append on one deque exclude
each other: either its popleft comes after our append and finds the item, or it comes before, and then its store of
asleep came before our append and we read True.  (With a GIL this is plain program order; without one the deque's own
mutex orders it, which an ``if ready:`` would not.)

Who can wait.  A carrier (see carrier.py) is the normal waiter.  A greenlet that a program made itself inside a
goroutine becomes one by `adopt`.  A plain thread waits on an OS lock, as a `ThreadWaiter` with the same face.  The
scheduler's own hub can not wait at all: that is an error at once.

Cancelling.  An exception for a goroutine is delivered only by the goroutine's own machine (Machine.deliver), so it
never races with the parking it interrupts: the goroutine is parked, or ready, or not started, or it is the very one
that runs.  Parked with a live ticket: withdraw the ticket and throw.  Having given way (in `ready`, with no ticket):
take it out of there and throw.  Otherwise: leave it in `pending`; every parking operation reads that before it
publishes a ticket, and the hub looks whether the goroutine has given way meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from math import inf
from time import monotonic
from typing import Any

from greenlet import getcurrent, greenlet

from ..errors import Cancelled, GortError, WouldBlockScheduler
from . import overdue as _overdue
from .guard import held

overdue = False
_overdue.register(globals())

Ticket = list[Any]

FOREVER = threading.TIMEOUT_MAX
FIRST_GLANCE = 0.05  # seconds that a signal may go unseen by a main thread that sleeps, if it came at a bad moment;
RAREST_GLANCE = 1.0  # the longer it sleeps the longer: see glances

COLLECTING = GortError(
    "a finalizer cannot wait here: the garbage collector runs it in the middle of one of gort's own operations; "
    "start a goroutine from it with gort.go(), and wait there"
)  # stands in `pending` for as long as that is so: see gcyield.py

parked_threads: set[Any] = set()  # plain threads that wait: in the child of a fork their tickets must not be served


class Hub(greenlet):
    """The greenlet of a machine's scheduling loop.  It has `.m`, so that `go` works there, but it cannot park."""

    __slots__ = ("m",)


class _Here(threading.local):
    """For each plain thread: what it is to the cancellable blocks that it has entered (plain.py)."""

    owner: Any = None
    collecting = False  # a garbage collection has interrupted one of gort's own operations there (gcyield.py)


here = _Here()


class ThreadWaiter:
    """A plain thread that waits: the face of a carrier, an OS lock behind it."""

    __slots__ = ("lock", "owner", "pending", "throws", "wait", "woken")

    asleep = False
    hub = None

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.woken = False
        self.throws: deque[tuple[Any, BaseException]] = deque()
        self.owner = owner = here.owner
        self.pending: BaseException | None = None if owner is None else owner.pending
        self.wait: Ticket | None = None

    # It is its own machine and its own ready queue: to become ready is to release the lock.
    @property
    def ready(self) -> ThreadWaiter:
        return self

    @property
    def m(self) -> ThreadWaiter:
        return self

    def append(self, _item: Any) -> None:
        self.woken = True
        self.lock.release()

    def advance(self, _w: Any) -> None:
        self.owner.advance(self)
        self.pending = self.owner.pending

    def rest(self) -> None:
        """Our ticket has been claimed: wait for the claimer to have done its work.

        Not simply by the lock: a signal handler may have raised after we had acquired it, and nobody releases twice.
        """
        while not self.woken:
            self.lock.acquire(timeout=1e-3)


def adopt(current: Any) -> Any:
    """Make the current greenlet, which is no carrier, able to wait; give a ThreadWaiter on a plain thread.

    Raises WouldBlockScheduler in a scheduler callback, and GortError in a greenlet that another goroutine than the one
    that made it has switched to.
    """
    inner = current
    while not hasattr(current, "carries"):
        if isinstance(current, Hub):
            raise WouldBlockScheduler(
                "a blocking call was made inside a scheduler callback, which would stop every goroutine of this thread: "
                "start a goroutine from the callback with gort.go() and block there"
            )
        up = current.parent
        if up is None:
            stand = own_stack(current)
            if stand is None:
                if here.collecting:
                    raise _no_wait()
                return ThreadWaiter()
            stand.settle(current)
            up = stand
        current = up
    # A greenlet that the goroutine made itself, or its thread's own: what parks and is resumed is that greenlet.  It has
    # no `pending` of its own, so that its carrier's is asked for each time.
    if current is inner:
        return current  # in a finalizer that runs between two goroutines
    if current.pending is COLLECTING:
        raise _no_wait()
    if _stray(inner, current):
        raise _wrong_goroutine(inner, current)
    inner.m, inner.ready, inner.wait, inner.seq = current.m, current.ready, None, 0
    inner.carrier, inner.of = current, current.g
    current.inner = inner
    return inner


stands: dict[int, Any] = {}  # what carries the goroutine that runs on a thread's own stack (apart.py), by the thread's number
starting = threading.RLock()  # held while such a thread is started, until it is in `stands`
ever: list[bool] = []  # not empty once such a thread has been started


def own_stack(root: Any, get_ident: Any = threading.get_ident, missing: Any = object(), ever: Any = ever) -> Any:
    """What carries the goroutine that runs on this thread's own stack, or None.  root: the thread's own greenlet.

    The thread itself has left no mark, for each would cost memory (apart.py); so this looks it up, once for each thread.
    (The defaults are for finalizers that ask when the interpreter ends, and this module has been emptied.)
    """
    if not ever or stands is None:
        return None
    stand = getattr(root, "stand", missing)
    if stand is missing:
        with starting:
            stand = root.stand = stands.get(get_ident())
    return stand if stand is not None and stand.lives() else None


def live_ticket(w: Any) -> Ticket | None:
    """The ticket that a waiter (or None) is parked with, if nobody has claimed it.  From any thread, as of this moment."""
    ticket = w.wait if w is not None else None
    if ticket is None or ticket[0] is not w:
        return None
    holds = getattr(ticket[2], "holds", None)  # a place where a claimed ticket keeps its first item: direction.py
    return ticket if holds is None or holds(ticket) else None


def _waits(w: Any) -> bool:
    return live_ticket(w) is not None


def _stray(inner: Any, carrier: Any) -> bool:
    """Has another goroutine switched to this greenlet, which the carrier's goroutine has made?

    While a goroutine is in a greenlet of its own, its carrier stands in that greenlet's `switch`.  So it does not wait,
    it has not given way, and no other greenlet of its waits.  The ready queue is searched only if it is short: this is
    done at each wait in such a greenlet.
    """
    if carrier.g is None or getattr(inner, "of", carrier.g) is not carrier.g:
        return True
    ready = carrier.ready
    queue = ready.copy() if 0 < len(ready) < 100 else ()
    return any(w is not inner and (_waits(w) or w in queue) for w in carrier.stands())


def _wrong_goroutine(inner: Any, carrier: Any) -> GortError:
    """The error, which is to arrive where the mistake was made, and not in the greenlet's parent: that waits, and knows
    nothing of it."""
    ready = set(carrier.ready.copy())
    culprits = [
        other
        for other in list(carrier.m.carriers)
        # What neither waits nor is ready, but has begun, is what this machine runs.
        if not (other is carrier or other.g is None or other.waits() or other in ready)
        and other.gr_frame is not None
    ]
    if len(culprits) == 1:
        inner.parent = culprits[0]
    made = "a goroutine that has ended" if carrier.g is None else carrier.g.describe()
    return GortError(
        f"this greenlet was made by {made}, and another goroutine has switched to it: switch to a greenlet only in the "
        "goroutine that made it, and hand work to another goroutine through a Chan"
    )


def waiter() -> Any:
    """Who is calling, as somebody who can wait.  Raises a cancellation that was left pending for it."""
    w = getcurrent()
    try:
        pending = w.pending  # type: ignore[attr-defined]
        owner = w
    except AttributeError:
        w = adopt(w)
        owner = getattr(w, "carrier", w)
        pending = owner.pending
    while pending is not None:
        if pending is COLLECTING:
            raise _no_wait()
        owner.m.advance(owner)
        scope = getattr(pending, "scope", None)
        if scope is None or scope.active:  # else its block was left by another goroutine: scope.py
            if isinstance(pending, (Cancelled, KeyboardInterrupt)):
                pending.raised = True  # type: ignore[union-attr]
            raise pending
        pending = owner.pending
    return w


def _no_wait() -> GortError:
    return GortError(*COLLECTING.args)


def carrier() -> Any:
    """The carrier that the caller runs in, itself or in a greenlet of a goroutine's own; None on a plain thread."""
    try:
        w: Any = getcurrent()
    except RuntimeError:  # the interpreter is ending: a finalizer asks, and no greenlet can run any more
        return None
    while not hasattr(w, "carries"):
        up = w.parent
        if up is None:
            return own_stack(w)
        if isinstance(w, Hub):
            return None
        w = up
    return w


def on_goroutine() -> bool:
    """Does the caller run inside a goroutine?"""
    return carrier() is not None


def in_block() -> bool:
    """Is the caller a plain thread that is in a block that can be cancelled (plain.py)?"""
    owner = here.owner
    return owner is not None and owner._scope is not None


def parks() -> bool:
    """Is the caller somebody whose waits can be cancelled: a goroutine, or a plain thread in such a block?"""
    return in_block() or on_goroutine()


def ready(w: Any) -> None:
    """Make a waiter whose ticket the caller has claimed runnable again.  From any thread."""
    w.ready.append(w)
    if w.m.asleep:
        w.m.wake()


def ready_throw(w: Any, error: BaseException) -> None:
    """Make a waiter whose ticket the caller has claimed runnable, with an exception.  From any thread.

    The machine's hub does the throwing: a greenlet that throws into another keeps the exception alive in its own
    frame until it runs again, and the hub runs again soonest.
    """
    m = w.m
    m.throws.append((w, error))
    w.ready.append(m.hub)
    if m.asleep:
        m.wake()


def park(w: Any, ticket: Ticket, timeout: float | None = None, what: str = "the operation") -> Any:
    """Wait until somebody claims the ticket, which the caller has just published, and return ticket[1].

    timeout is in seconds (None: for ever).  Raises TimeoutError when it is over first, and whatever was thrown.
    Call it with no lock held.
    """
    w.wait = ticket
    if type(w) is ThreadWaiter:
        return (_park_thread if w.owner is None else w.owner.park)(w, ticket, timeout, what)
    m = w.m
    alarm = None
    if timeout is not None:
        alarm = m.sched.timeout_after(timeout, ticket, lambda: _late(what, timeout))
    m.parked = w.seq = m.parked + 1
    queue = w.ready
    try:
        if queue:
            queue.popleft().switch()
        else:
            m.hub.switch()
    finally:
        w.wait = None
        if alarm is not None and alarm[0] is not None:
            alarm[0] = None
            alarm[2].dead += 1
    return ticket[1]


def late(message: str) -> TimeoutError:
    """The error of a blocking operation whose time is over."""
    error = TimeoutError(message)
    error.of_gort = True  # type: ignore[attr-defined]
    return error


def _late(what: str, timeout: float) -> TimeoutError:
    return late(f"{what} timed out after {timeout:g} s")


def is_late(error: BaseException) -> bool:
    """Does it say that the timeout of one of gort's operations was over?  If not, a signal handler raised it, say.

    A mark and no class of its own, for what users see and compare is TimeoutError.
    """
    return hasattr(error, "of_gort")


def on_main_thread() -> bool:
    """Is this the thread that signal handlers run on?"""
    return threading.get_ident() == threading.main_thread().ident


def glances(timeout: float | None) -> Iterator[float]:
    """For how long the main thread sleeps at a time until so many seconds are over: in between it looks up.

    CPython does not see a signal that comes while the main thread is on its way to sleep, or that the system gives to another
    thread.  (On that way it gives the GIL away, or without one offers its CPU to others forty times.)  Its handler would run
    when somebody wakes that thread.
    """
    left = inf if timeout is None else min(max(timeout, 0.0), FOREVER)
    until = monotonic() + left
    glance = FIRST_GLANCE
    while True:
        yield max(0.0, min(glance, left))
        if left <= glance:
            return
        left = until - monotonic()
        glance = min(glance * 2, RAREST_GLANCE)


def sleep_on(lock: Any, timeout: float | None) -> bool:
    """Take the lock, or wait for so many seconds.  Only here does a plain thread's wait mean that Ctrl-C may be raised."""
    if not on_main_thread():
        return bool(lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), FOREVER)))
    for seconds in glances(timeout):
        if lock.acquire(timeout=seconds):
            return True
    return False


def _park_thread(w: ThreadWaiter, ticket: Ticket, timeout: float | None, what: str) -> Any:
    try:
        parked_threads.add(w)
        done = sleep_on(w.lock, timeout)
    except BaseException:
        # A signal handler raised (Ctrl-C).  Either nothing has happened and nothing will, or it has already happened
        # and the value must not vanish with us.
        if not ticket[2].withdraw(ticket):
            w.rest()
            if not w.throws:
                give_back = getattr(ticket[2], "give_back", None)
                if give_back is not None:
                    give_back(ticket)
        raise
    finally:
        parked_threads.discard(w)
    if not done:
        if ticket[2].withdraw(ticket):
            raise _late(what, timeout)
        w.rest()  # somebody claimed it just before us
    if w.throws:
        raise w.throws.popleft()[1]
    return ticket[1]


def give_way() -> None:
    """The slow path of ``if overdue:``: if this machine is the late one, let its other goroutines run.

    A machine that is late may also have lost its P to another while its goroutine was away in a long call: the hub,
    which sysmon put at the head of the ready queue, sees to that before anything else runs.
    """
    w = getcurrent()
    try:
        m = w.m  # type: ignore[attr-defined]
        queue = w.ready  # type: ignore[attr-defined]
    except AttributeError:
        return
    if not m.late or getattr(w, "pending", None) is COLLECTING or held(m.sched.lock):
        return  # (the latter two: a finalizer or signal handler that has interrupted gort's own work)
    _overdue.clear(m)
    m.yielded += 1
    queue.append(w)
    queue.popleft().switch()


def gosched() -> None:
    """Let others run: other goroutines, timers, I/O.  From a plain thread: other threads.  Go: runtime.Gosched."""
    w = getcurrent()
    try:
        queue = w.ready  # type: ignore[attr-defined]
    except AttributeError:
        _gosched_slow(w)
        return
    queue.append(w)
    first = queue.popleft()
    if first is not w:  # asked this way round, the common case saves a look at the queue's length (30 ns)
        first.switch()
    else:
        # Nobody else is ready here: the hub looks at timers, I/O, the global queue and the other Ps, then comes back.
        queue.append(w)
        w.m.hub.switch()  # type: ignore[attr-defined]


def _gosched_slow(w: Any) -> None:
    if isinstance(w, Hub):
        return
    w = adopt(w)
    if type(w) is ThreadWaiter:
        time.sleep(0)
    else:
        w.ready.append(w)
        w.m.hub.switch()
