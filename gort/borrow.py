"""borrow: the standard library's own code, over other names.

The idea.  `socket.create_connection` is twenty lines that are right, and that call the globals ``getaddrinfo`` and
``socket`` of their module.  A twin of that module needs the same lines with its own ``getaddrinfo`` and ``socket``.
So it takes the function's *code*, as whatever version of Python is running has it, and gives it the twin's globals.
Nothing is copied into this repository, nothing of the standard module is changed, and its next bug fix is ours too.

What makes it sound: a function finds its globals in ``__globals__`` and nowhere else.  So the twin's namespace must
hold every name that the borrowed code uses, private ones too: `rest` fills it with all that the twin has not defined.

Refused: to keep edited copies of standard modules (they age, and differ from version to version); to execute a whole
module anew under a changed `sys.modules` (other threads import at the same time, and two of each class are one too
many: ``except socket.gaierror`` must catch what the other module raises).
"""

from __future__ import annotations

from collections.abc import Callable
from types import CellType, FunctionType, ModuleType
from typing import Any


def function(fn: Callable[..., Any], names: dict[str, Any], closure: tuple[CellType, ...] | None = None) -> Any:
    """The same function with other globals (and, if given, other closure cells)."""
    fn = getattr(fn, "__func__", fn)
    assert isinstance(fn, FunctionType)
    new = FunctionType(fn.__code__, names, fn.__name__, fn.__defaults__, fn.__closure__ if closure is None else closure)
    new.__kwdefaults__ = fn.__kwdefaults__
    new.__doc__ = fn.__doc__
    new.__qualname__ = fn.__qualname__
    new.__annotations__ = dict(fn.__annotations__)
    new.__module__ = names["__name__"]
    return new


def functions(module: ModuleType, names: dict[str, Any], wanted: str) -> None:
    """Borrow these functions of a module, those of them that it has on this system and in this version."""
    for name in wanted.split():
        fn = getattr(module, name, None)
        if isinstance(fn, FunctionType):
            names[name] = function(fn, names)


def rest(module: ModuleType, names: dict[str, Any]) -> None:
    """Fill a twin's namespace with every name of the standard module that it has not defined itself.

    What ``from twin import *`` gives is what the standard module gives.
    """
    public = []
    for name, value in vars(module).items():
        if not (name.startswith("__") and name.endswith("__")):
            names.setdefault(name, value)
        if not name.startswith("_"):
            public.append(name)
    names["__all__"] = list(getattr(module, "__all__", public))


def cls(base: type, names: dict[str, Any], *bases: type) -> Any:
    """A subclass of a standard class (and of bases, which go first) with all its methods over other globals."""
    cell = CellType()

    def other(value: Any) -> Any:
        if isinstance(value, FunctionType):
            # `super()` finds its class in a closure cell.
            cells = tuple(
                cell if name == "__class__" else old
                for name, old in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
            )
            return function(value, names, cells)
        if isinstance(value, (staticmethod, classmethod)) and isinstance(value.__func__, FunctionType):
            return type(value)(other(value.__func__))
        if isinstance(value, property):
            return property(other(value.fget), other(value.fset), other(value.fdel), value.__doc__)
        return value

    body = {name: other(value) for name, value in vars(base).items()}
    body = {name: value for name, value in body.items() if value is not vars(base)[name]}
    body.update(__module__=names["__name__"], __qualname__=base.__qualname__, __doc__=base.__doc__)
    new = type(base)(base.__name__, (*bases, base), body)
    cell.cell_contents = new
    return new
