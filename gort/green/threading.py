"""threading, cooperatively: threads are goroutines, and locks and their like park.

The idea.  `Lock` is a Mutex (gort/sync/mutex.py) under another name, `RLock` one with an owner, `local` is gort's.
`Condition`, `Semaphore`, `Event`, `Barrier` and `Timer` are the standard library's own code over those, but for
`Condition.wait`: a goroutine may be cancelled at each of its two waits, which no thread ever is.

A `Thread` started by a goroutine is a goroutine of the same runtime: `start` costs a few microseconds, and a hundred
thousand of them may exist.  Started on a plain thread it is a plain thread, as ever.  `get_ident` tells goroutines
apart (and is a goroutine's number), `get_native_id` the threads they happen to run on.

One difference must be known: when the main goroutine ends, the other goroutines are cancelled, also those that are
threads and not daemons.  Join what must be finished.
"""

from __future__ import annotations

import sys as _sys
import threading as _std
from collections.abc import Callable as _Callable
from contextvars import copy_context as _copy_context
from typing import Any

from .. import borrow as _borrow
from ..errors import GortError as _GortError
from ..runtime import overdue as _overdue
from ..runtime.carrier import current as _current
from ..runtime.goroutine import ENDS as _ENDS
from ..runtime.goroutine import Goroutine as _Goroutine
from ..runtime.instance import launch as _launch
from ..runtime.wait import give_way as _give_way
from ..runtime.wait import is_late as _is_late
from ..runtime.wait import parks as _parks
from ..sync.cond import relock as _relock
from ..sync.ending import on_end as _on_end
from ..sync.event import Event as _Event
from ..sync.local import local as _local
from ..sync.mutex import Mutex as _Mutex

overdue = False
_overdue.register(globals())

_threads: dict[int, Any] = {}  # a living goroutine's number -> its Thread


def get_ident() -> int:
    """A number that no other living goroutine or thread has."""
    g = _current()
    return _std.get_ident() if g is None or _is_thread(g) else g.id


def _is_thread(g: _Goroutine[Any]) -> bool:
    """Is this the main goroutine?  It stands for the thread that has called `run`, on which it is."""
    return g.carrier.m.sched.main is g


def _check_acquire(blocking: bool, timeout: float) -> float | None:
    """The arguments of `acquire`, judged as the standard one does, as a Mutex's timeout."""
    if not blocking:
        if timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0
    if timeout == -1:
        return None
    if timeout != timeout:
        raise ValueError("Invalid value NaN (not a number)")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > _std.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return float(timeout)  # which a bool is not, for gort, but is for the standard one


class Lock(_Mutex):
    """As `threading.Lock`."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Lock it; was that possible, without waiting or within so many seconds?"""
        limit = _check_acquire(blocking, timeout)
        if overdue:
            _give_way()
        if self._take():
            return True
        if limit == 0:
            return False
        try:
            self.lock(limit)
        except TimeoutError as exc:
            if not _is_late(exc):
                raise
            return False
        return True

    def release(self) -> None:
        """Unlock it; any goroutine or thread may."""
        try:
            self.unlock()
        except _GortError:
            raise RuntimeError("release unlocked lock") from None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    acquire_lock, release_lock, locked_lock = acquire, release, _Mutex.locked
    _is_owned = _Mutex.locked  # Condition would try to acquire it, and so give way, where one may be cancelled

    def _at_fork_reinit(self) -> None:
        _Mutex.__init__(self)


class RLock:
    """As `threading.RLock`: its owner may acquire it again."""

    def __init__(self) -> None:
        self._block = Lock()
        self._owner: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Lock it, or count one more if the caller has it already."""
        me = get_ident()
        if self._owner == me:  # nobody else can make this true or untrue
            _check_acquire(blocking, timeout)
            self._count += 1
            return True
        if not self._block.acquire(blocking, timeout):
            return False
        self._owner = me
        self._count = 1
        return True

    def release(self) -> None:
        """Count one less; unlock it with the last.  Only its owner may."""
        if self._owner != get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._block.release()

    def locked(self) -> bool:
        """Does anybody have it?"""
        return self._block.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "locked" if self._block.locked() else "unlocked"
        return f"<{state} gort.green.threading.RLock owner={self._owner} count={self._count} at {id(self):#x}>"

    # What Condition asks of a lock that may be held several times.

    def _release_save(self) -> tuple[int, int | None]:
        if not self._count:
            raise RuntimeError("cannot release un-acquired lock")
        state = (self._count, self._owner)
        self._count = 0
        self._owner = None
        self._block.release()
        return state

    def _acquire_restore(self, state: tuple[int, int | None]) -> None:
        self._block.acquire()
        self._count, self._owner = state

    def _is_owned(self) -> bool:
        return self._owner == get_ident()

    def _recursion_count(self) -> int:
        return self._count if self._owner == get_ident() else 0

    def _at_fork_reinit(self) -> None:
        RLock.__init__(self)


class Thread(_std.Thread):
    """As `threading.Thread`; a goroutine, if a goroutine starts it."""

    _goroutine: _Goroutine[None] | None = None
    _over: _Event | None = None

    def __init__(self, *args: Any, **kw: Any) -> None:
        _std.Thread.__init__(self, *args, **kw)  # and not super(): Timer borrows from the standard one
        self._standard_hook = self.__dict__.pop("_invoke_excepthook")  # ours is the class's

    def start(self) -> None:
        """Begin to run it."""
        if _current() is None:
            self._over = _Event()
            super().start()
            return
        if not getattr(self, "_initialized", False):
            raise RuntimeError("thread.__init__() not called")
        if self._started.is_set():
            raise RuntimeError("threads can only be started once")
        if overdue:
            _give_way()
        frame = _sys._getframe(1)
        g = _Goroutine(self._as_goroutine, (), {}, _copy_context() or None, frame.f_code, frame.f_lasti)
        g.name = self.name
        self._goroutine = g
        self._ident = g.id
        self._started.set()
        _register(g, self)
        _launch(g)  # and only now, for it may run before this returns

    def _as_goroutine(self) -> None:
        self._native_id = _std.get_native_id()
        context = getattr(self, "_context", None)  # given by hand (3.14); `go` has seen to it otherwise
        try:
            if context is None:
                self.run()
            else:
                context.run(self.run)
        except _ENDS:
            raise
        except BaseException:  # SystemExit too, of which the standard hook takes no notice
            self._invoke_excepthook(self)

    def _invoke_excepthook(self, _thread: Any) -> None:
        """Have the hook called: this module's, if the program has put its own there, else the standard one's."""
        hook = globals()["excepthook"]
        if hook is _hook or hook is None:
            self._standard_hook(self)
            return
        args = _std.ExceptHookArgs([*_sys.exc_info(), self])
        try:
            hook(args)
        except Exception as exc:
            exc.__suppress_context__ = True
            _sys.excepthook(type(exc), exc, exc.__traceback__)
        finally:
            args = None  # it is a cycle

    def _bootstrap_inner(self) -> None:
        try:
            super()._bootstrap_inner()  # type: ignore[misc]
        finally:
            self._over.set()  # type: ignore[union-attr]

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, for at most so many seconds."""
        g = self._goroutine
        if g is None:
            # Its last moments as a thread cannot be waited for cooperatively, nor need they.
            other = super().is_alive() and self is not _std.current_thread()
            if other and self._over is not None and _parks() and not self._join(self._over.wait, timeout):
                return
            super().join(timeout)
            return
        if g is _current():
            raise RuntimeError("cannot join current thread")
        self._join(g.join, timeout)

    def _join(self, wait: _Callable[[float | None], None], timeout: float | None) -> bool:
        if timeout is not None and timeout > _std.TIMEOUT_MAX:
            raise OverflowError("timeout value is too large")
        try:
            wait(timeout if timeout is None else float(timeout))
        except TimeoutError as exc:
            if not _is_late(exc):
                raise
            return False
        return True

    def is_alive(self) -> bool:
        """Has it begun and not ended?"""
        g = self._goroutine
        return super().is_alive() if g is None else not g.done()

    def __repr__(self) -> str:
        g = self._goroutine
        if g is None:
            return super().__repr__()
        state = f"{'stopped' if g.done() else 'started'}{' daemon' if self.daemon else ''}"
        return f"<{type(self).__name__}({self.name}, {state} goroutine {g.id})>"


class _OtherGoroutine(Thread):
    """What `current_thread` gives for a goroutine that is no Thread."""

    def __init__(self, g: _Goroutine[Any]) -> None:
        super().__init__(name=f"Goroutine-{g.id}", daemon=True)
        self._started.set()
        self._goroutine = g
        self._ident = g.id
        self._native_id = _std.get_native_id()

    def start(self) -> None:
        raise RuntimeError("threads can only be started once")


def _register(g: _Goroutine[Any], thread: Any) -> None:
    _threads[g.id] = thread
    number = g.id
    _on_end(g, lambda: _threads.pop(number, None) and None)


def current_thread() -> _std.Thread:
    """The Thread that is running; a stand-in, if it was not started as one."""
    g = _current()
    if g is None or _is_thread(g):
        return _std.current_thread()
    thread = _threads.get(g.id)
    if thread is None:
        thread = _OtherGoroutine(g)
        _register(g, thread)
    return thread


def enumerate() -> list[_std.Thread]:
    """The Threads that are alive: plain ones, and goroutines that were started as, or asked for, a Thread."""
    return [*_std.enumerate(), *list(_threads.values())]


def active_count() -> int:
    """How many Threads are alive."""
    return len(enumerate())


local = _local
_allocate_lock = Lock
_CRLock = _PyRLock = RLock

# In the order of dependence: each finds the earlier ones in this namespace.
_borrow.rest(_std, globals())


class Condition(_borrow.cls(_std.Condition, globals())):  # type: ignore[misc]
    """As `threading.Condition`.  `wait` ends with the lock locked, always (sync/cond.py)."""

    def wait(self, timeout: float | None = None) -> bool:
        """Unlock the lock, wait for a notification, or for so many seconds, lock it again; was there a notification?"""
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = Lock()
        waiter._take()
        self._waiters.append(waiter)
        state = self._release_save()
        try:
            try:
                if timeout is None:
                    got = waiter.acquire()
                else:
                    got = waiter.acquire(True, timeout) if timeout > 0 else waiter._take()
            finally:
                _relock(lambda: self._acquire_restore(state))
            return got or self._was_notified(waiter)
        except BaseException:
            if self._was_notified(waiter) and self._is_owned():  # it came too late for us: it is the next one's
                self.notify()
            raise

    def _was_notified(self, waiter: Lock) -> bool:
        """A wait is over: has somebody taken it out of the queue?  Else do that."""
        try:
            self._waiters.remove(waiter)
            return False
        except ValueError:
            return True


Semaphore = _borrow.cls(_std.Semaphore, globals())
BoundedSemaphore = _borrow.cls(_std.BoundedSemaphore, globals(), Semaphore)
Event = _borrow.cls(_std.Event, globals())
Barrier = _borrow.cls(_std.Barrier, globals())
Timer = _borrow.cls(_std.Timer, globals(), Thread)
currentThread = current_thread
activeCount = active_count
_hook = globals()["excepthook"]  # as borrowed: a program may put another in its place
