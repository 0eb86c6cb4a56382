"""local: attributes that every goroutine has its own of.

The idea.  As threading.local, from goroutine to goroutine: each sees the attributes that it has set itself, and none
at first.  They are kept here in a dict from a goroutine's number (never used twice) to its attributes, and dropped
when the goroutine has ended (ending.py), not when its handle goes.  On a plain thread a real threading.local holds
them, so they go with the thread.  A greenlet that a goroutine made itself shares its attributes.

A subclass with an ``__init__`` of its own has it called in each goroutine that uses the object, with the arguments
of the first call, as in threading.local.  And as there, class attributes, methods and properties are common to all:
the look-up below is Python's own order of type and instance.

A request's identity, a user, a locale are better kept in a `contextvars.ContextVar`, which a goroutine inherits from
the one that started it.  `local` is for what must not be inherited, such as a connection.

Refused: a context variable inside (a child would keep its parent's values alive, and ``Context.run`` would hide
them); changing ``__dict__`` for the time of an access, as the standard library's Python version does (two threads
would need a lock around it, and a property may switch to another goroutine in the middle).
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

from greenlet import getcurrent

from ..runtime.carrier import Carrier, current
from .ending import on_end

_get = object.__getattribute__
_missing = object()


class _Store(dict[int, dict[str, Any]]):
    """The attributes of all goroutines, by number.  A class, so that it can be referred to weakly."""

    __slots__ = ("__weakref__",)


def _forget(ref: weakref.ref[_Store], number: int) -> None:
    store = ref()
    if store is not None:
        store.pop(number, None)


def _values(self: local) -> dict[str, Any]:
    """The attributes of whoever is calling."""
    w: Any = getcurrent()
    g = w.g if type(w) is Carrier else current()
    if g is not None:
        store = _get(self, "_local_store")
        values = store.get(g.id)
        if values is not None:
            return values
        values = store[g.id] = {}
        ref = weakref.ref(store)
        number = g.id
        on_end(g, lambda: _forget(ref, number))
    else:
        thread = _get(self, "_local_thread").__dict__
        values = thread.get("values")
        if values is not None:
            return values
        values = thread["values"] = {}
    init = _get(self, "_local_init")
    if init is not None:
        type(self).__init__(self, *init[0], **init[1])
    return values


def _on_type(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return _missing


class local:
    """An object whose attributes every goroutine, and every plain thread, has its own of.

    A subclass may have an ``__init__``, which is called with the same arguments wherever the object is first used.
    Raises TypeError for arguments without such a subclass.  Like threading.local; Go has none.
    """

    __slots__ = ("__weakref__", "_local_init", "_local_store", "_local_thread")

    def __new__(cls, *args: Any, **kw: Any) -> Any:
        own_init = cls.__init__ is not object.__init__
        if (args or kw) and not own_init:
            raise TypeError("local() takes no arguments: make a subclass with an __init__ that does")
        self = object.__new__(cls)
        put = object.__setattr__
        put(self, "_local_store", _Store())
        put(self, "_local_thread", threading.local())
        put(self, "_local_init", None)
        _values(self)  # here the caller's __init__ comes by itself, after this
        put(self, "_local_init", (args, kw) if own_init else None)
        return self

    def __getattribute__(self, name: str) -> Any:
        values = _values(self)
        if name == "__dict__":
            return values
        if name in values:
            found = _on_type(type(self), name)
            if found is _missing or not hasattr(type(found), "__set__"):  # else a property and its like, which go first
                return values[name]
        return _get(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__}.__dict__ cannot be replaced: change it in place")
        found = _on_type(type(self), name)
        if found is not _missing and hasattr(type(found), "__set__"):
            object.__setattr__(self, name, value)
        else:
            _values(self)[name] = value

    def __delattr__(self, name: str) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__}.__dict__ cannot be deleted")
        found = _on_type(type(self), name)
        if found is not _missing and hasattr(type(found), "__delete__"):
            object.__delattr__(self, name)
            return
        try:
            del _values(self)[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r} in this goroutine") from None

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *_values(self)})
