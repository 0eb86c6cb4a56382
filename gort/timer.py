"""Timer, Ticker, after and after_func: time as channels, as in Go.

The idea.  Each is an `Alarm` of the runtime (runtime/timers.py) that sends the time to a channel of capacity 1 when
it rings; `after_func`'s starts a goroutine.  As in Go since 1.23, the channel never holds a stale value: `stop` and
`reset` empty it, under the same lock under which the alarm sends, so that no send can be on its way when they return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from sys import _getframe
from time import monotonic
from types import CodeType
from typing import Any

from .chan import Chan
from .runtime import instance
from .runtime.goroutine import Goroutine
from .runtime.timers import Alarm, check_seconds, deadline, resets
from .runtime.wait import ready


# Not `try_send` and `try_recv`: those may give way, and under an alarm's lock nobody must.
def _put(chan: Chan[float], value: float) -> None:
    chan._lock()
    woken = chan._give(value)
    chan._unlock()
    if woken is not None and woken is not True:
        ready(woken)


def _empty(chan: Chan[float]) -> bool:
    chan._lock()
    got = chan._take()
    chan._unlock()
    return got is not None


class Timer(Alarm):
    """Rings once after so many seconds: sends the time (time.monotonic) to its channel `c`.

    Negative or zero seconds: at once.  Works on any thread; on a plain thread without a `run` it uses the background
    runtime.  The timer that after_func gives has no channel: its `c` is None.  Go: time.Timer, time.NewTimer.
    """

    __slots__ = ("_sched", "c")

    def __init__(self, seconds: float) -> None:
        seconds = check_seconds(seconds)
        super().__init__()
        self.c: Chan[float] = Chan(1)
        self._sched = instance.timers_home()
        self.begin(self._sched, deadline(seconds))

    def _ring(self) -> None:
        _put(self.c, monotonic())

    def stop(self) -> bool:
        """Ring no more.  True if that prevented a ring, False if it has rung or was stopped.  Go: Timer.Stop."""
        with self.lock:
            # Rung, but nobody has heard it: then it counts as prevented.
            stale = _empty(self.c)
            return self.cease() or stale

    def reset(self, seconds: float) -> bool:
        """Ring so many seconds from now instead; True if it had still been going to ring.  Go: Timer.Reset."""
        when = deadline(check_seconds(seconds))
        with self.lock:
            self._renew()
            stale = _empty(self.c)
            return self.start(self._sched, when) or stale

    def _renew(self) -> None:
        if self._sched.closed:  # made in a `run` that has ended
            self._sched = instance.timers_home()

    def __repr__(self) -> str:
        return f"<gort.{type(self).__name__.strip('_')} {'planned' if self.planned() else 'not planned'}>"


class _Timer(Timer):
    """The timer of `after_func`: it starts a goroutine when it rings.

    It needs no lock to ring and to be stopped, for there is no value that may be stale: whoever takes the entry's
    fourth item, by a `pop` that is atomic, has rung it or stopped it.  `resets` keeps apart those who replace the entry;
    and who finds it rung or stopped looks once more under that lock, for it may have been replaced at that moment.
    The new one is in its place before it is planned, so it can be stopped in between: then what is planned is dead.
    """

    __slots__ = ("_args", "_code", "_context", "_fn", "_kw", "_lasti")

    # What __init__ would do is done in after_func.
    _entry: list[Any]
    _fn: Callable[..., Any]
    _args: tuple[Any, ...]
    _kw: dict[str, Any]
    _context: Context | None
    _code: CodeType
    _lasti: int

    def stop(self) -> bool:
        if _claim(self._entry):
            return True
        with resets:
            return _claim(self._entry)

    def reset(self, seconds: float) -> bool:
        when = deadline(check_seconds(seconds))
        with resets:
            planned = _claim(self._entry)
            self._renew()
            self._entry = entry = [self, None, None, None]
        self._sched.add_timer(when, entry, _ring_later)
        return planned

    def planned(self) -> bool:
        return len(self._entry) == 4


def _claim(entry: list[Any]) -> bool:
    try:
        entry.pop(3)
    except IndexError:
        return False
    entry[0] = None
    if entry[2] is not None:
        entry[2].dead += 1
    return True


def _ring_later(entry: list[Any]) -> None:
    timer = entry[0]
    try:
        entry.pop(3)
    except IndexError:
        return  # stopped
    entry[0] = None  # or the timer would be a cycle
    if not timer._sched.closing:
        context = timer._context and timer._context.copy()  # a copy each: it may be reset, and ring again
        instance.launch(Goroutine(timer._fn, timer._args, timer._kw, context, timer._code, timer._lasti))


class Ticker(Alarm):
    """Rings every so many seconds: sends the time to its channel `c`; a tick that nobody took is dropped.

    May be iterated.  Stop it when it is no longer needed.  Raises ValueError unless seconds > 0.
    Go: time.Ticker, time.NewTicker.
    """

    __slots__ = ("_next", "_period", "_sched", "c")

    def __init__(self, seconds: float) -> None:
        self._period = _check_period(seconds)
        self.c: Chan[float] = Chan(1)
        self._sched = instance.timers_home()
        self._next = deadline(self._period)
        super().__init__()
        self.begin(self._sched, self._next)

    def _ring(self) -> None:
        now = monotonic()
        # The next multiple of the period that is still to come: a late tick does not make all others late.
        late = now - self._next
        missed = late / self._period
        self._next += self._period * max(1, int(missed) + 1) if missed < 1e15 else late
        _put(self.c, now)
        self.start(self._sched, self._next)

    def stop(self) -> None:
        """Tick no more.  The channel is not closed.  Go: Ticker.Stop."""
        with self.lock:
            self.cease()
            _empty(self.c)

    def reset(self, seconds: float) -> None:
        """Tick every so many seconds from now on.  Go: Ticker.Reset."""
        period = _check_period(seconds)
        with self.lock:
            self._period = period
            _empty(self.c)
            self._next = deadline(period)
            self._renew()
            self.start(self._sched, self._next)

    _renew = Timer._renew

    def __iter__(self) -> Iterator[float]:
        return self.c

    def __repr__(self) -> str:
        return f"<gort.Ticker every {self._period:g} s>"


def _check_period(seconds: float) -> float:
    period = check_seconds(seconds)
    if not period > 0:
        raise ValueError(f"a Ticker's seconds must be more than 0, not {period:g}")
    return period


def after(seconds: float) -> Chan[float]:
    """A channel that receives the time once, so many seconds from now.  Go: time.After."""
    return Timer(seconds).c


def after_func(seconds: float, fn: Callable[..., Any], /, *args: Any, **kw: Any) -> Timer:
    """Call fn(*args, **kw) in a goroutine of its own, so many seconds from now; `stop` prevents it.

    Raises TypeError if fn cannot be called.  Go: time.AfterFunc.
    """
    instance._check_callable(fn, "after_func")
    when = deadline(check_seconds(seconds))
    frame = _getframe(1)
    timer: _Timer = _Timer.__new__(_Timer)
    timer.c = None  # type: ignore[assignment]
    # In slots, not in a closure with its cells: of 10^5 timers the garbage collector's looks cost more than all else.
    timer._fn = fn
    timer._args = args
    timer._kw = kw or instance.NO_KW
    timer._context = copy_context() or None
    timer._code, timer._lasti = frame.f_code, frame.f_lasti
    timer._sched = instance.timers_home()
    timer._entry = entry = [timer, None, None, None]
    timer._sched.add_timer(when, entry, _ring_later)
    return timer
