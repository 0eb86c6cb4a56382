"""The public names themselves: which there are, and that each is documented and typed."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import gort
from gort.errors import GortError

# The names that the design promises; what else there is must be in `__all__` and documented, and is not listed here.
PROMISED = """
    run go gosched sleep current timeout shield blocking Goroutine Runtime gomaxprocs num_goroutine num_cpu stacks stats
    Chan select recv send after after_func Timer Ticker excepthook
    WaitGroup Mutex RWMutex Cond Once once Semaphore Event Barrier Pool SingleFlight local Group context
    GortError ChannelClosed Deadlock Cancelled GoroutineCancelled ThreadLimit RuntimeClosed SyncError BrokenBarrier
""".split()
CONTEXT = "background with_cancel with_timeout with_deadline with_value without_cancel after_func cause current".split()
MODULES = ["gort", "gort.aio", "gort.context", "gort.errors", "gort.futures", "gort.net", "gort.sync", "gort.testing"]


def everything() -> list[str]:
    found = [info.name for info in pkgutil.walk_packages(gort.__path__, "gort.")]
    return ["gort", *(name for name in found if not name.endswith("__main__"))]


def public() -> Iterator[tuple[str, Any]]:
    """Every public name of the modules above, and every public attribute of its classes."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, (ModuleType, str)):  # a constant is explained where it is used
                continue
            full = f"{module.__name__}.{name}"
            yield full, thing
            if inspect.isclass(thing):
                for attribute, value in vars(thing).items():
                    if attribute.startswith("_") and attribute not in ("__init__", "__enter__", "__iter__", "__len__"):
                        continue
                    if isinstance(value, (classmethod, staticmethod)):
                        value = value.__func__
                    if isinstance(value, (FunctionType, property)):
                        yield f"{full}.{attribute}", value


def functions() -> list[tuple[str, Any]]:
    found = [(name, value.fget if isinstance(value, property) else value) for name, value in public()]
    return [(name, value) for name, value in found if isinstance(value, FunctionType)]


@pytest.mark.parametrize("name", MODULES)
def test_all_is_right(name: str) -> None:
    """Broken: `from gort import *` fails, or a name stands twice, or in no order, or is private."""
    module = importlib.import_module(name)
    names = module.__all__
    assert len(set(names)) == len(names) and all(hasattr(module, each) for each in names)
    assert not [each for each in names if each.startswith("_")]
    assert sorted(names) == list(names)


def test_what_was_promised_is_there() -> None:
    """Broken: a name of the design cannot be imported from gort."""
    assert set(PROMISED) <= set(gort.__all__)
    assert set(CONTEXT) <= set(gort.context.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", gort.__version__)


def test_nothing_else_is_public() -> None:
    """Broken: gort has a name that is neither public, nor private, nor a module."""
    names = {name for name, value in vars(gort).items() if not isinstance(value, ModuleType)}
    own = {name for name in names if not name.startswith("_")} - {"TYPE_CHECKING", "Any", "annotations"}
    assert own <= set(gort.__all__)


@pytest.mark.parametrize("name", everything())
def test_every_module_opens_with_what_it_is(name: str) -> None:
    """Broken: a file does not say what it is for."""
    doc = importlib.import_module(name).__doc__ or ""
    assert doc.strip() or name.endswith("_version"), name


def test_the_scheduler_s_files_are_in_their_order() -> None:
    """Broken: gort/runtime/__init__.py leaves a file out, or one imports another that comes after it, or from above."""
    import gort.runtime

    assert gort.runtime.__doc__ is not None
    order = re.findall(r"^    (\w+) +\S", gort.runtime.__doc__, re.MULTILINE)
    here = Path(gort.runtime.__path__[0])
    assert sorted(order) == sorted(path.stem for path in here.glob("*.py") if path.stem != "__init__")
    for number, name in enumerate(order):
        for node in ast.walk(ast.parse((here / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                parts = [node.module] if node.module else [alias.name for alias in node.names]
                allowed = order[:number] if node.level == 1 else ["errors"]
                assert set(parts) <= set(allowed), f"{name}: {ast.unparse(node)}"


def test_every_public_name_is_documented() -> None:
    """Broken: a public name has no docstring, or one that does not open with a sentence on one line."""
    bad = []
    for name, thing in public():
        if re.search(r"\.__\w+__$", name):
            continue  # the class says it
        doc = (inspect.getdoc(thing) if not inspect.isclass(thing) else thing.__doc__) or ""
        first = doc.strip().split("\n")[0].rstrip()
        if not first.endswith((".", ":", "?", ")")) and "  Go:" not in first:
            bad.append(f"{name}: {first!r}")
    assert not bad, "\n".join(bad)


def test_everything_public_is_typed() -> None:
    """Broken: a parameter or a result has no annotation, so type checkers know nothing of it."""
    bad = []
    for name, fn in functions():
        if fn is gort.open:
            continue  # for type checkers it is the built-in one
        signature = inspect.signature(fn)
        for i, parameter in enumerate(signature.parameters.values()):
            if parameter.annotation is parameter.empty and not (i == 0 and parameter.name in ("self", "cls")):
                bad.append(f"{name}: {parameter.name}")
        if signature.return_annotation is signature.empty:
            bad.append(f"{name}: its result")
    assert not bad, "\n".join(bad)


def test_annotations_mean_something() -> None:
    """Broken: an annotation names what does not exist, so ``typing.get_type_hints`` raises."""
    for name, fn in functions():
        try:
            typing.get_type_hints(fn)
        except Exception as exc:
            pytest.fail(f"{name}: {exc!r}")


def test_errors_are_one_family() -> None:
    """Broken: ``except GortError`` misses one of gort's own errors, or a plain ``except Exception`` takes Cancelled."""
    for name, thing in public():
        if inspect.isclass(thing) and issubclass(thing, BaseException):
            if thing is gort.Cancelled:
                assert not issubclass(thing, Exception)
            elif not issubclass(thing, AssertionError):  # what a test failed of
                assert issubclass(thing, GortError), name


def test_every_wait_of_a_public_class_takes_a_timeout() -> None:
    """Broken: there is a wait that cannot be limited where it stands.  (A context limits them all, by ``with``.)"""
    waits = ["gort.Chan.send", "gort.Chan.recv", "gort.Chan.recv_ok", "gort.select", "gort.wait"]
    waits += [f"gort.Goroutine.{name}" for name in ("join", "result", "exception")]
    waits += [f"gort.{name}" for name in ("Mutex.lock", "RWMutex.lock", "RWMutex.rlock", "RWMutex.read", "RWMutex.write")]
    waits += [f"gort.{name}" for name in ("WaitGroup.wait", "Cond.wait", "Cond.wait_for", "Once.do", "Semaphore.acquire")]
    waits += [f"gort.{name}" for name in ("Event.wait", "Barrier.wait", "SingleFlight.do")]
    known = dict(public())
    for name in waits:
        parameter = inspect.signature(known[name]).parameters["timeout"]
        assert parameter.default is None and "timeout" in known[name].__doc__, name
