"""Contexts: a call's deadline, its cancellation and its values, handed down a tree.  Go: package context.

The idea.  As in Go, a context is never changed, only derived from: `background` is the root of every tree,
`with_cancel`, `with_timeout` and `with_deadline` give a child that can end before its parent, `with_value` one that
carries a value more, `without_cancel` one that does not end when its parent does.  A context ends once, for one
reason, and with it all that is derived from it; a child's end is nothing to its parent.

A context is applied to code in one way, ``with``::

    ctx = context.with_timeout(context.background(), 5)
    with ctx:
        answer = ch.recv()      # given up when ctx ends
    # DeadlineExceeded, or ContextCancelled with the cause, if that was what ended the block

Inside the block every blocking operation belongs to the context; no operation has a parameter for it.  Any number of
goroutines may be in a ``with`` on the same context.  Leaving the block does not end the context (that is `cancel`'s
business, as others may be using it).  `current` is the context of the innermost ``with``, also in goroutines that were
started inside it: they may put their own work under it, with ``with current():``.

What differs from Go: `cancel` is a method, but only of what `with_cancel` and its like return (`CancelContext`), so a
function that is given a `Context` is given no way to end it; deadlines are times of ``time.monotonic``; one need not
call cancel to release anything.

How an end reaches all whom it concerns is in books.py.

Refused: a `ctx=` for every operation beside its `timeout=` (two ways, and the body of a third-party function has
neither).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from sys import _getframe
from time import monotonic
from typing import Any, Self

from .books import Books, End, new_lock, tell
from .cancel import leave
from .chan import Chan
from .errors import ChannelClosed, ContextCancelled, DeadlineExceeded, GortError, RuntimeClosed
from .runtime import instance
from .runtime.carrier import current as _current_goroutine
from .runtime.goroutine import Goroutine
from .runtime.scope import Scope
from .runtime.scope import owner as scope_owner
from .runtime.timers import INFINITY, check_seconds
from .runtime.timers import deadline as _ahead

__all__ = [
    "CancelContext",
    "Context",
    "ContextCancelled",
    "DeadlineExceeded",
    "after_func",
    "background",
    "cause",
    "current",
    "with_cancel",
    "with_deadline",
    "with_timeout",
    "with_value",
    "without_cancel",
]


class _Within(Scope):
    """One ``with ctx:``.  A listener: `tell` is called once, when the context ends."""

    __slots__ = ("before", "ctx", "end")

    before: Context
    ctx: Context
    end: End

    def tell(self, end: End, here: bool = False) -> None:
        self.end = end
        self.cancel(end.message, here)


class _Done(Chan[Any]):
    """The channel of `Context.done`.

    It may be received from in another runtime than the one in which it was asked for, which may be gone with its timer.
    """

    __slots__ = ("ctx",)

    def __init__(self, ctx: CancelContext) -> None:
        super().__init__()
        self.ctx = ctx

    def recv(self, timeout: float | None = None) -> Any:
        self.prepare()
        return super().recv(timeout)

    def try_recv(self) -> tuple[Any, bool]:
        self.prepare()
        return super().try_recv()

    @property
    def closed(self) -> bool:
        self.prepare()
        return self._closed

    def prepare(self) -> None:
        if not self._closed and self.ctx._look() is None:
            self.ctx._keep_time()

    def tell(self, _end: End) -> None:
        try:
            self.close()
        except ChannelClosed:
            pass  # the program has closed it itself, for whatever reason: closed is what it is to be


class _Later:
    """One `after_func`."""

    __slots__ = ("g", "sched")

    def __init__(self, g: Goroutine[Any]) -> None:
        self.g = g
        self.sched = _scheduler()

    def tell(self, _end: End) -> None:
        try:
            instance.launch(self.g, self.sched)
        except RuntimeClosed:
            pass  # and with the runtime all its goroutines have ended, this one included


def _scheduler() -> Any:
    """The scheduler of the calling goroutine; on a plain thread, the one that `go` would use."""
    m = instance._machine()
    return instance._default() if m is None else m.sched


_NO_KEY: Any = object()


class Context:
    """A deadline, a cancellation and values, for a call and all that it calls.  Made by the functions of this module.

    ``with ctx:`` puts a block under it; see the module.  Go: context.Context.
    """

    __slots__ = ("__weakref__", "_key", "_never", "_parent", "_source", "_value", "_what")

    _source: CancelContext | None  # the nearest of itself and its ancestors that can end

    def __init__(self, parent: Context | None, source: CancelContext | None, what: str) -> None:
        self._parent = parent
        self._source = source
        self._what = what
        self._key = _NO_KEY
        self._value: Any = None
        self._never: Chan[Any] | None = None  # what `done` gives if it cannot end

    def done(self) -> Chan[Any]:
        """A channel that is closed when the context ends: for `select`, and to wait for the end.  Go: Done."""
        source = self._source
        if source is not None:
            return source._done_channel()
        if self._never is None:
            self._never = Chan()
        return self._never

    def err(self) -> ContextCancelled | None:
        """None while it has not ended; then a ContextCancelled (or DeadlineExceeded).  Go: Err."""
        source = self._source
        end = None if source is None else source._look()
        return None if end is None else end.error()

    def deadline(self) -> float | None:
        """When it will have ended at the latest, in terms of time.monotonic(); None: no limit.  Go: Deadline."""
        source = self._source
        return None if source is None or source._deadline == INFINITY else source._deadline

    def value(self, key: Any, default: Any = None) -> Any:
        """The value that the nearest `with_value` gave this key, or default.  Go: Value."""
        ctx: Context | None = self
        while ctx is not None:
            if ctx._key is not _NO_KEY and (ctx._key is key or ctx._key == key):
                return ctx._value
            ctx = ctx._parent
        return default

    def __enter__(self) -> Self:
        scope = _Within()
        scope.enter("a context's with block")
        try:
            scope.ctx = self
            scope.before = _current.get()
            source = self._source
            if source is not None:
                end = source._listen(scope)
                if end is not None:
                    scope.tell(end, here=True)  # the first operation that would wait raises it
        except BaseException:
            scope.exit(None)
            raise
        _current.set(self)
        return self

    def __exit__(self, _type: object, exc: BaseException | None, _tb: object) -> None:
        g = scope_owner()
        scope: Any = getattr(g, "_scope", None)
        # The innermost of ours.  It is the innermost of all, unless a generator was suspended inside its with block.
        while scope is not None and getattr(scope, "ctx", None) is not self:
            scope = scope.parent
        if scope is None:
            if _current_goroutine() is None:
                # After a fork that was made inside the block: what was a goroutine is plain code here.
                _current.set(_background)
                return
            raise GortError("a context's with block is left by another goroutine than the one that entered it")
        source = self._source
        if source is not None:
            source._unlisten(scope)
        _current.set(scope.before)
        leave(scope, exc, lambda: scope.end.error())

    def __repr__(self) -> str:
        ctx: Context | None = self
        names = []
        while ctx is not None:
            names.append(ctx._what)
            ctx = ctx._parent
        end = None if self._source is None else self._source._look()
        return f"<Context {'.'.join(reversed(names))}{'' if end is None else f': {end.message}'}>"


class CancelContext(Books, Context):
    """A context that can be ended: see `with_cancel`."""

    __slots__ = ("_above", "_cause", "_deadline", "_done", "_end", "_listeners", "_lock", "_timers")

    def __init__(self, parent: Context, what: str, when: float = INFINITY, cause: BaseException | None = None) -> None:
        above = parent._source
        super().__init__(parent, self, what)
        self._above = above  # whose end ends this one
        self._lock: Any = above._lock if above is not None else new_lock()  # the tree's
        self._deadline: float = when if above is None else min(when, above._deadline)
        self._cause = cause  # of the deadline
        self._end: End | None = None
        self._listeners: dict[Any, None] = {}
        self._timers: dict[Any, list[Any]] = {}  # by the scheduler that each is planned in
        self._done: _Done | None = None

    def cancel(self, cause: BaseException | None = None) -> bool:
        """End it, and all that is derived from it.  False if it had ended already; then nothing changes.

        cause is an exception that says why: `cause` and the errors that come of it will show it.  From any thread.
        Does not wait.  Go: context.CancelCauseFunc.
        """
        _check_cause(cause)
        message = "the context was cancelled" if cause is None else f"the context was cancelled: {_text(cause)}"
        end = End(ContextCancelled, message, cause, monotonic())
        told: list[Any] = []
        with self._lock:
            first = self._due(told) is None
            if first:
                self._finish(end, told)
        tell(told)
        return first

    def _done_channel(self) -> Chan[Any]:
        with self._lock:
            fresh = self._done is None
            if fresh:
                self._done = _Done(self)
        done = self._done
        assert done is not None
        if fresh:
            try:
                end = self._listen(done)
            except BaseException:
                self._done = None
                raise
            if end is not None:
                done.tell(end)
        return done


_background = Context(None, None, "background")
_current: ContextVar[Context] = ContextVar("gort.context", default=_background)


def background() -> Context:
    """The root: never ends, has no deadline and no values.  Go: context.Background."""
    return _background


def current() -> Context:
    """The context of the innermost ``with`` around the caller, or around the `go` that started it.

    background() if there is none.
    """
    return _current.get()


def with_cancel(parent: Context) -> CancelContext:
    """A child of parent that ends when its `cancel` is called, or when parent ends.  Go: context.WithCancelCause.

    Raises TypeError if parent is not a Context.
    """
    return CancelContext(_check_parent(parent), "with_cancel")


def with_timeout(parent: Context, seconds: float, cause: BaseException | None = None) -> CancelContext:
    """A child of parent that ends so many seconds from now, at the latest.  Go: context.WithTimeoutCause.

    cause is an exception to be shown when the time is over.  Raises TypeError or ValueError for what is no number of
    seconds.  For a single block, `gort.timeout` is shorter.
    """
    seconds = check_seconds(seconds)
    when = _ahead(seconds)
    return CancelContext(_check_parent(parent), f"with_timeout({seconds:g})", when, _check_cause(cause))


def with_deadline(parent: Context, when: float, cause: BaseException | None = None) -> CancelContext:
    """A child of parent that ends at a time of ``time.monotonic()``, at the latest.  Go: context.WithDeadlineCause."""
    when = check_seconds(when, "when")
    return CancelContext(_check_parent(parent), f"with_deadline({when:g})", when, _check_cause(cause))


def with_value(parent: Context, key: Any, value: Any) -> Context:
    """A child of parent whose value(key) is value.  Use keys of your own type to avoid collisions.

    Go: context.WithValue.
    """
    ctx = Context(_check_parent(parent), parent._source, "with_value")
    ctx._key = key
    ctx._value = value
    return ctx


def without_cancel(parent: Context) -> Context:
    """A context with the values of parent that does not end when parent does.  Go: context.WithoutCancel."""
    return Context(_check_parent(parent), None, "without_cancel")


def cause(ctx: Context) -> BaseException | None:
    """Why ctx ended: the exception given to `cancel` (or for the deadline), else ctx.err().  Go: context.Cause."""
    error = _check_parent(ctx).err()
    return error if error is None or error.cause is None else error.cause


def after_func(ctx: Context, fn: Callable[..., Any], /, *args: Any, **kw: Any) -> Callable[[], bool]:
    """Call fn(*args, **kw) in a goroutine of its own when ctx ends (now, if it has).  Go: context.AfterFunc.

    The goroutine belongs to the runtime that after_func was called in: if that has ended by then, nothing is called.
    Returns stop: stop() takes that back, and says whether it came in time (False: the goroutine has been started).
    """
    instance._check_callable(fn, "after_func")
    source = _check_parent(ctx)._source
    frame = _getframe(1)
    later = _Later(Goroutine(fn, args, kw, copy_context(), frame.f_code, frame.f_lasti))
    if source is None:
        held = [later]  # nobody will ever ask for it: only `stop` has something to tell

        def forget() -> bool:
            try:
                held.pop()
            except IndexError:
                return False
            return True

        return forget
    end = source._listen(later)
    if end is not None:
        later.tell(end)
    return lambda: source._unlisten(later)


def _check_parent(ctx: Any) -> Context:
    if not isinstance(ctx, Context):
        hint = "begin with context.background() or context.current()"
        raise TypeError(f"a Context is needed, not {type(ctx).__name__}: {hint}")
    return ctx


def _check_cause(cause: Any) -> BaseException | None:
    if cause is not None and not isinstance(cause, BaseException):
        raise TypeError(f"cause must be an exception that says why, or None, not {type(cause).__name__}")
    return cause


def _text(cause: BaseException) -> str:
    kind = type(cause).__name__
    try:
        text = str(cause)
    except Exception:
        text = ""  # an exception's own __str__ may fail
    return f"{kind}: {text}" if text else kind
