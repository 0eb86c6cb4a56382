"""Scopes: a stretch of code, of a goroutine or a plain thread, that can be cancelled from outside, and one that cannot.

The idea.  `Goroutine.cancel` ends a whole goroutine.  A time-out, a context or a group ends only what happens inside a
``with`` block.  Both use the same mechanism (Machine.deliver): an exception at the goroutine's wait, or at its next
blocking operation.  For a `Scope` that exception is a `Cancelled` that carries its scope, so that the block's end knows
its own when it comes by, and swallows it or turns it into what its user expects (TimeoutError, say).

A plain thread has no machine; what stands for it is in plain.py.

Invariants.
- `cancel` may be called from any thread, any number of times; only the first counts.
- The exception is raised at most once, and only while the goroutine is inside the block.  It cannot arrive later:
  delivery and the block's end both happen on the goroutine's own machine, and the end clears `active` and takes back
  an exception that was delivered but not raised yet.
- A block is entered and left by the same goroutine.  Only a generator can break that, and gets an error.
- It is not lost to another that was faster: exceptions for one goroutine queue up (Machine.deliver, advance), and each
  is raised at a blocking operation of its own, unless its block has ended by then.

A *shield* holds back, until its block ends, what is aimed at something outside it: the goroutine, and scopes that were
entered before.  A scope entered inside works: a time limit on the clean-up is the very thing one writes there.
An exception that is sent a second time because the first did nothing (Ctrl-C, a test's time limit) has `insists`, and
goes through shields.
"""

from __future__ import annotations

from typing import Any

from ..errors import Cancelled, GortError
from . import plain, wait
from .carrier import current
from .goroutine import Goroutine
from .wait import COLLECTING


def owner() -> Any:
    """Whose scopes the caller's are: its goroutine, or its plain thread if that has ever entered one; else None."""
    g = current()
    return plain.here() if g is None else g


class _Finalizer(Goroutine[None]):
    """Stands for the goroutine of a finalizer that runs between two (a result that nobody keeps has one): see enter."""

    __slots__ = ()

    def leave(self) -> None:
        carrier, self._value = self.carrier, None
        if carrier.g is self:
            carrier.g = None
            if carrier.pending is not COLLECTING:
                carrier.pending = None


def _between_goroutines() -> Goroutine[Any] | None:
    """A stand-in for the calling carrier's goroutine, if it has none at the moment.  It ends with its outermost block."""
    carrier = wait.carrier()
    if carrier is None:
        return None
    g = _Finalizer(_Finalizer.leave, (), {}, None, None, 0)
    g.name = "a finalizer"
    g.carrier = carrier
    carrier.g = g
    return g


_LEFT = object()  # whose a scope is that has been left


class Scope:
    """A block of code of one goroutine, or plain thread, that `cancel` ends."""

    __slots__ = ("active", "error", "g", "once", "parent", "shields")

    def __init__(self) -> None:
        self.active = False
        self.error: Cancelled | None = None
        self.g: Any = None  # the goroutine, or the plain thread; in the end _LEFT
        self.parent: Scope | None = None
        self.once = [None]
        self.shields = 0  # how many shields stood around the block when it began

    def enter(self, what: str) -> None:
        """Begin the block; what names it in errors.  Raises GortError on a second use."""
        g: Any = current() or _between_goroutines() or plain.enter()
        if self.active or self.g is not None:
            raise GortError(f"{what} is used a second time: make a new one for every with block")
        self.g = g
        self.parent = getattr(g, "_scope", None)
        self.shields = getattr(g, "_shields", 0)
        self.active = True
        g._scope = self
        if self.error is not None:  # cancelled before it began
            g.carrier.m.deliver(g, self.error)

    def cancel(self, message: str, here: bool = False) -> bool:
        """End the block with Cancelled(message).  From any thread.  False if it was cancelled already.

        here: who calls is about to enter the block's body, so that its first wait is not to begin.
        """
        try:
            self.once.pop()
        except IndexError:
            return False
        error = Cancelled(message)
        error.scope = self
        self.error = error
        g = self.g
        if g is not None and self.active and g.carrier is not None:
            m = g.carrier.m
            (m.deliver if here else m.request)(g, error)
        return True

    def exit(self, exc: BaseException | None) -> bool:
        """End the block; was exc this scope's own doing?

        Raises GortError if it is left by another goroutine than the one that entered it.
        """
        self.active = False
        g = self.g
        assert g is not None
        if g is _LEFT:
            return exc is not None and exc is self.error
        if owner() is not g and self._left_elsewhere(exc):
            return False
        inner = getattr(g, "_scope", None)
        if inner is self:
            g._scope = self.parent
            if self.parent is None and type(g) is _Finalizer:
                g.leave()
        else:  # blocks may end in another order than they began: a generator closed inside another block
            while inner is not None and inner.parent is not self:
                inner = inner.parent
            if inner is not None:
                inner.parent = self.parent
        carrier = g.carrier
        if carrier.pending is not None and carrier.pending is self.error:
            carrier.m.advance(carrier)
        # An exception that ends the goroutine knows the scope (by a frame's variable, or as Cancelled.scope).  If we knew
        # the goroutine, only the collector would find out that nobody asks for it, and it would be reported long after.
        self.g = _LEFT
        return exc is not None and exc is self.error

    def _left_elsewhere(self, exc: BaseException | None) -> bool:
        """A generator was suspended inside the block, and somebody else goes on with it.  True: that does no harm.

        The books of the one who entered are his thread's to change, so they stay as they are; that the scope is no
        longer active is enough: what is not raised yet never will be (wait.waiter).
        """
        if _gone(self.g):
            return False  # in the child of a fork the one who entered is this thread, under another name
        _check_elsewhere(self.g, exc)
        return True


def _gone(g: Any) -> bool:
    return isinstance(g, Goroutine) and getattr(g.carrier, "gone", False)


def _check_elsewhere(g: Any, exc: BaseException | None) -> None:
    """A block that g entered is left by another, with exc.  No harm if the generator is only cleaned up, or if nobody is
    there any more whom the block could concern; else raise GortError."""
    if isinstance(exc, GeneratorExit) or (isinstance(g, Goroutine) and g.done()):
        return
    who = g.describe() if isinstance(g, Goroutine) else "a plain thread"
    raise GortError(
        f"this block was entered by {who}, and is left by another goroutine or thread: a generator that is suspended "
        "inside a with block of gort must be finished, or closed, where it was begun"
    )


class Shield:
    """``with Shield():`` no cancellation of any kind arrives inside; what came is delivered afterwards."""

    __slots__ = ("g",)

    def __enter__(self) -> None:
        self.g = g = owner()
        if isinstance(g, plain.PlainThread):
            g.shield()
        elif g is not None:
            g._shields = getattr(g, "_shields", 0) + 1
            carrier = wait.carrier()
            if carrier.pending not in (None, COLLECTING):  # had come before, and waits for a blocking operation
                come = [carrier.pending, *getattr(g, "_more", ())]
                stay = [exc for exc in come if hasattr(exc, "insists")]  # no shield is for those, which stand for the first ones
                kinds = {type(exc) for exc in stay}
                g._held = [*getattr(g, "_held", ()), *(exc for exc in come if type(exc) not in kinds)]
                carrier.pending, *g._more = stay or [None]

    def __exit__(self, _type: object, exc: BaseException | None, _tb: object) -> None:
        g = self.g
        if g is not None and owner() is not g and not _gone(g):
            # It stays shielded, for only its own thread can change that.
            _check_elsewhere(g, exc)
            return
        if isinstance(g, plain.PlainThread):
            g.unshield()
        elif g is not None:
            g._shields -= 1
            held, g._held = getattr(g, "_held", ()), []
            for exc in held:  # what another shield still holds back goes back to `_held`
                g.carrier.m.deliver(g, exc, again=True)
