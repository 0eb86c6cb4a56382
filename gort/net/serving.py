"""serve: a goroutine for each connection.

The idea.  `serve` accepts, and starts ``handler(conn)`` as a goroutine of its own; when the handler returns or fails,
its connection is closed.  The Listener is the handle: to close it is the graceful stop.  `serve` then waits for the
handlers that still run, as long as `grace` says, cancels the rest, waits for their clean-up, and returns.  If `serve`
itself is interrupted (cancelled, Ctrl-C, a time limit around it) it cancels them at once.  Either way nothing is left:
no goroutine, no connection, no listener.

A handler's exception is a goroutine's that nobody asked for: reported once through gort.excepthook, and the server
goes on.  Not reported is what says that its own peer has gone (a ConnectionError from this very connection, or that the
system has waited in vain for a sign of life: alive.py).

Where handlers run.  With a GIL a second machine would only get in the way, so the accepting machine starts each handler
itself, before it accepts the next.  Without one a machine with nothing to do may steal it, and there it stays: but only when
it has waited for longer than others must (stealing.PATIENCE).  Else a burst of connections is spread by chance, and two
machines that both sleep and wake up for a few requests each cost a tenth more CPU time than one.
"""

from __future__ import annotations

import errno
import ssl
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from greenlet import getcurrent

from ..cancel import shield
from ..errors import GortError
from ..runtime.goroutine import FREE_THREADED, Goroutine
from ..runtime.instance import NO_KW, launch, launch_first
from ..runtime.stealing import PATIENT
from ..runtime.timers import check_seconds
from ..runtime.wait import gosched, is_late, on_goroutine
from ..sync import Semaphore, WaitGroup
from ..sync.ending import on_end
from .conn import Conn
from .errors import ConnClosed
from .listener import Listener, listen
from .tls import TLSConn

BATCH = 16  # connections accepted in a row before others get their turn
HANDSHAKE = 30.0  # seconds that a TLS client has for its handshake
_LOST = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)  # a peer that no longer answers


def serve(
    address: Any,
    handler: Callable[[Conn], Any],
    *,
    limit: int | None = None,
    grace: float | None = None,
    tls: Any = None,
) -> None:
    """Run ``handler(conn)`` in a goroutine for each connection that comes to an address, until the listener is closed.

    address is a Listener, or whatever `listen` takes (then with tls=).  limit is how many connections may be open at a
    time; more wait in the system's queue.  When the listener is closed, the handlers may go on for grace seconds
    (None: as long as they want, 0: not at all), then they are cancelled; `serve` returns when all have ended.  Raises
    what `listen` raises.  Only inside a goroutine.  Go: http.Serve and its kin.
    """
    if not callable(handler):
        raise TypeError(f"handler must be a function of one argument, the connection, not {type(handler).__name__}")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ValueError(f"limit must be a number of connections, 1 or more, not {limit!r}")
    if grace is not None:
        grace = check_seconds(grace, "grace")
    if not on_goroutine():
        raise GortError("serve works only inside a goroutine: gort.run(serve, address, handler)")
    if isinstance(address, Listener):
        if tls is not None:
            raise ValueError("tls= belongs to listen(), where this Listener was made")
        listener = address
    else:
        listener = listen(address, tls=tls)
    _Server(listener, handler, limit).run(grace)


def _is_peers_end(exc: BaseException, conn: Conn) -> bool:
    """Does it say that the connection's peer has gone, and nothing else?  (A Group's errors come in an ExceptionGroup.)"""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_peers_end(one, conn) for one in exc.exceptions)
    if not isinstance(exc, OSError) or getattr(exc, "conn", None) is not conn:
        return False
    return isinstance(exc, (ConnectionError, ssl.SSLError)) or exc.errno in _LOST


class _Server:
    """One `serve` that is going on."""

    def __init__(self, listener: Listener, handler: Callable[[Conn], Any], limit: int | None) -> None:
        self.listener = listener
        self.handler = handler
        # Not bounded, for the listener's close adds a permit: with that `_accept` finds out that it has been closed.
        self.room = Semaphore(limit, bounded=False) if limit is not None else None
        self.open = WaitGroup()
        self.lock = threading.Lock()
        self.live: dict[Conn, Goroutine[Any]] = {}
        self.m = getattr(getcurrent(), "m", None)  # it accepts: there connections are made
        self.over = False  # handlers that have not begun shall not
        self.handle = self._handling(handler)

    def run(self, grace: float | None) -> None:
        try:
            self._accept()
            try:
                self.open.wait(grace)
            except TimeoutError as exc:
                if not is_late(exc):
                    raise
                self._end()
        except BaseException:
            self._end()
            raise

    def _accept(self) -> None:
        listener = self.listener
        room = self.room
        if room is not None:
            # Or a close would not be seen while all places are taken.  The permit that it adds lets no connection in:
            # it comes after the close, and then `accept` gives none.  A close before this line leaves all places free.
            listener._on_close.append(room.release)
        try:
            while True:
                for _ in range(BATCH):  # in a row, without letting others run
                    if room is not None:
                        room.acquire()
                    try:
                        conn = listener.accept()
                    except BaseException:
                        if room is not None:
                            room.release()
                        raise
                    self._start(conn)
                gosched()
        except ConnClosed:
            pass
        finally:
            listener.close()

    def _start(self, conn: Conn) -> None:
        # From here on the connection is its handler's, or `_end`'s if that is dropped before it begins.
        code = _Server._start.__code__
        g: Goroutine[Any] = Goroutine(self.handle, (conn,), NO_KW, copy_context() or None, code, 0)
        self.open.add(1)
        on_end(g, self.open.done)  # not in the handler's own `finally`: there it still runs, and serve would leave it behind
        self.live[conn] = g
        if FREE_THREADED:
            launch(g)
        else:
            launch_first(g)

    def _handling(self, handler: Callable[[Conn], Any]) -> Callable[[Conn], None]:
        """The function that the handlers' goroutines run."""

        def handle(conn: Conn) -> None:
            try:
                if self.over:
                    return
                if FREE_THREADED and getattr(getcurrent(), "m", None) is not self.m:
                    conn._adopt(conn._sock)
                if type(conn) is TLSConn:
                    try:
                        conn.handshake(HANDSHAKE)
                    except OSError:
                        return  # a client that does not speak TLS, is too slow, or does not trust us: nothing of ours
                handler(conn)
            except Exception as exc:
                if not _is_peers_end(exc, conn):
                    raise
            finally:
                self._ended(conn)

        # By this the goroutines have their handler's name, and sysmon knows one handler that blocks from another.
        handle.func = handler  # type: ignore[attr-defined]
        if FREE_THREADED:
            PATIENT[id(handle.__code__)] = handle.__code__  # (it is the same code for every server)
        return handle

    def _ended(self, conn: Conn) -> None:
        conn.close()
        with self.lock:
            self.live.pop(conn, None)
        if self.room is not None:
            self.room.release()

    def _end(self) -> None:
        """Cancel the handlers, and wait until they have ended."""
        self.over = True
        with shield():
            with self.lock:
                rest = list(self.live.values())
            for g in rest:
                g.cancel()
            for g in rest:
                g.join()
            for conn in list(self.live):  # handlers that were dropped before they began
                self._ended(conn)
            self.open.wait()  # handlers that have left `live`, and have not ended yet
