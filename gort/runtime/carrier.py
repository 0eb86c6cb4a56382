"""The carrier: the greenlet that runs goroutines, one after another.

The idea.  Making a greenlet and switching to it for the first time costs 8 us (it maps a new stack for frames); a
switch to an old one 0.2-0.4 us; a turn of a loop nothing to speak of.  So a carrier whose goroutine ends takes the
next fresh goroutine in the same loop, and one with nothing to take is kept by its machine for later (as Go keeps its
gFree list).  A goroutine owns a carrier only from its first instruction to its last.  To end a carrier costs another
4 us, so those too many end when the machine has nothing else to do, and a few at each look of sysmon (Machine.trim).

The turn of the local run queue.  A machine has two kinds of work: started goroutines (carriers, in its `ready`
queue) and fresh ones (in its P's LRQ).  A goroutine that parks takes the next thing from `ready` and switches to it,
without asking anybody; so the LRQ must stand in `ready` as well, or it would starve.  It does, as one idle carrier,
the *starter*: `m.starter` is what stands in `ready` for the LRQ, or None.  If there is no idle carrier, the *maker*
stands there, and makes one: a new carrier is first switched to from the maker or the hub only, because a greenlet begins
its C stack and its recursion count where it is first switched to, and carriers started by carriers would pile up.

The maker is a greenlet of its own, not the hub, so that the LRQ's place in `ready` cannot be mistaken for a call of
the hub by sysmon or a canceller: when the hub stood there itself, each such call forgot the old place and took a new
one, the old ones stayed in the queue, and started goroutines waited 61 starts for each.

Invariant, at every switch: if the LRQ is not empty then a starter is in `ready`.  Hence:

- `go` puts a goroutine into the LRQ and, if there is no starter, one to the end of `ready`;
- the starter, when switched to, takes a fresh goroutine, and if there are more, first puts another starter to the
  *front* of `ready`: should this goroutine park, the LRQ's turn goes on;
- a goroutine that ends with the starter at the front of `ready` goes on with the next fresh one in the same loop;
- every 61st start the turn ends, whether goroutines end or park: the global queue is asked first, the starter moves to
  the end, the others run (and if the starter is the maker, the hub looks at timers and all else when it gets there).

While a P is idle and there is no GIL, that P should get what is not bound to be here: a goroutine that talks with one it
has started belongs on one machine with it, and two such pairs on two.  Nobody can tell at `go` who will talk with whom,
but a goroutine's own children are the likeliest.  So, only while a P is idle: the newest is started first (thieves take
the oldest, as everywhere since Cilk), and the LRQ's turn is passed over for HOLD, once in a slice, while
goroutines that were woken are ready: they run here meanwhile, and the idle P's machine comes and steals.

So 100,000 goroutines that return at once are run by one carrier without a switch, and started goroutines wait for at
most 61 starts.  Only the machine's own thread touches `starter`, `free` and the front of `ready` (sysmon may put the
hub at the front: that only delays us), so none of this needs a lock.  Other machines may steal from the LRQ at any
moment: a starter that finds it empty just goes back to the idle ones.

Where an outcome is written: see goroutine.py.  The context: a greenlet has its own current context, so setting
`gr_context` costs 50 ns and no C frame, where `Context.run` would put one under every goroutine.
"""

from __future__ import annotations

from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from . import apart, handoff
from .carrying import Carrying
from .goroutine import FAILED, FREE_THREADED, PENDING, Goroutine
from .wait import Hub, Ticket, own_stack

TURN = 61
_ANY = handoff.ANY


class Carrier(Carrying, greenlet):
    """A greenlet that runs goroutines."""

    __slots__ = ("g", "inner", "m", "pending", "ready", "seq", "wait")

    # Set by Machine.new_carrier: an __init__ of its own would add 300 ns to the price of a carrier.
    wait: Ticket | None
    seq: int  # which of its machine's waits it is in, or was in last: see ages.py

    def rest(self) -> bool:
        """Let the machine go on without us until we are the starter again.  False: end for good."""
        m = self.m
        self.gr_context = None
        if not m.alive:
            m.carriers.discard(self)
            return False
        m.free.append(self)
        queue = m.ready
        if queue:
            queue.popleft().switch()
        else:
            m.hub.switch()
        while True:
            if m.trims is self or not m.alive:
                m.carriers.discard(self)
                return False
            if FREE_THREADED and queue and m.holds():
                queue.append(self)
                queue.popleft().switch()
                continue
            m.starter = None
            return True

    def runs(self) -> bool:
        """Is it the one that its machine runs right now?"""
        return getcurrent() is self or (self.gr_frame is None and not self.dead)


def carry(first: Goroutine[Any] | None = None) -> None:
    """The loop of a carrier.  Entered as starter, left when the machine ends or trims.

    first is to be started before any other: the main goroutine, which belongs to the thread that called `run`, and so
    is never in the LRQ, where another machine might find it.

    Not a method: a bound method is an object and two C frames more, 200 bytes of each parked goroutine.
    """
    self: Any = getcurrent()
    m = self.m
    ready = m.ready
    m.starter = None
    n = 0
    g = None
    try:
        while True:
            # -- take a fresh goroutine
            n = m.started + 1
            p = m.p
            if first is not None:
                m.started = n
                g = first
            elif p is None or not n % TURN:
                g = m.take_rarely(n)
            elif FREE_THREADED:
                g = None
                lrq = p.lrq
                if lrq:
                    m.started = n  # as below
                    try:
                        # (The oldest every 8th time, for that P may get no machine.)
                        g = lrq.pop() if n % 8 and m.sched.idle else lrq.popleft()
                    except IndexError:  # stolen meanwhile
                        m.started = n - 1
            else:
                m.started = n  # before it is taken, so that it is counted at every moment: see stats.py
                try:
                    g = p.lrq.popleft()
                except IndexError:
                    m.started = n - 1
                    g = None
            if g is None:
                if not self.rest():
                    return
                continue
            if first is not None:
                first = None
            elif _ANY and p is not None and handoff.blocks(m.sched, g) and apart.start(m.sched, g):
                m.moves += 2  # before the other, see stats.py
                m.started = n - 1
                continue
            if m.starter is None and p is not None and p.lrq:
                m.starter = starter = m.free.pop() if m.free else m.maker
                if n % TURN:
                    ready.appendleft(starter)
                else:
                    ready.append(starter)

            # -- run it
            self.g = g
            g.carrier = self  # before fn is read: see Goroutine.cancel
            self.gr_context = g.ctx
            ends = False
            try:
                value = g.fn(*g.args, **g.kw)
            except BaseException as exc:
                g.fail(exc, m.sched)  # raises nothing, whatever exc is like
                m.failed(g, exc)
                value = FAILED
                ends = isinstance(exc, GreenletExit)  # the greenlet itself is to end (the interpreter does, say)
            if FREE_THREADED:
                m.ended += 1  # before anybody can see that it has
                g.finish_locked(value)
            else:
                g._value = value
                if g._waiters is not None:
                    g.wake_joiners()
            g.args = g.kw = g.ctx = None
            self.g = self.pending = self.inner = None
            g = value = None
            if ends:
                m.carriers.discard(self)
                return

            # -- whose turn is it?
            if m.starter is not None:
                if n % TURN:
                    if ready[0] is m.starter:
                        continue
                else:
                    if ready[0] is m.starter:
                        ready.append(ready.popleft())
                    if ready[0] is m.starter and m.starter is not m.maker:
                        continue
            elif not ready:
                continue
            if not self.rest():
                return
    except BaseException as exc:
        # A signal handler of the program's own has raised, here, between two goroutines.
        if g is not None:
            _save(self, g, exc)
        raise  # in the hub, which sees to the rest (Machine.recover)


def _save(carrier: Carrier, g: Goroutine[Any], exc: BaseException) -> None:
    """What a carrier is about to leave must not be lost: a goroutine that it has taken, or an outcome nobody was told."""
    m = carrier.m
    if g.carrier is not carrier:  # taken, and not begun
        if g is not m.main_g:  # else the hub starts it again
            m.sched.grq.appendleft(g)
        return
    if g._value is PENDING:
        g.fail(exc, m.sched)
        g.finish_locked(FAILED)
    elif g._waiters is not None:
        g.wake_joiners()
    carrier.g = None


def current() -> Goroutine[Any] | None:
    """The goroutine that is calling, or None on a plain thread.

    Inside a greenlet that a goroutine made itself it is that goroutine.  Go has no counterpart, on purpose; a Python
    program may want it for logging and `contextvars` are better for anything else.
    """
    try:
        w: Any = getcurrent()
    except RuntimeError:  # the interpreter is ending, and closes a generator, say, that was left suspended in a block
        return None
    while type(w) is not Carrier:
        up = w.parent
        if up is None:
            stand = own_stack(w)
            return None if stand is None else stand.g
        if type(w) is Hub:
            return None
        w = up
    return w.g
