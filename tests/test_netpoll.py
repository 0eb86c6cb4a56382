"""The network poller, through `Descriptor`: what every socket, pipe and terminal in gort stands on.

What is tested against are behaviours 29 to 31, and the promise that no event is lost and no wait outlives its
descriptor, from goroutines of any machine and from plain threads.
"""

import errno
import os
import pty
import random
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
from greenlet import getcurrent

import gort
from gort.runtime import instance, interrupt, netpoll
from gort.runtime.kqueue import KqueuePoller
from gort.runtime.netpoll import Descriptor, DescriptorClosed
from elsewhere import FAKES, FakeKqueue
from settling import settle

STRESS = int(os.environ.get("GORT_STRESS", "1"))


def run(fn, procs=None):
    return gort.run(fn, procs=procs)


def left() -> tuple[set[str], set[threading.Thread]]:
    """Descriptors and threads; without the background runtime's, which may start its second one at any time."""
    background = instance._background
    own = background._sched.threads if background is not None else ()
    return set(os.listdir("/proc/self/fd")), {thread for thread in threading.enumerate() if thread not in own}


@pytest.fixture(autouse=True)
def nothing_left():
    """No test may leave an open descriptor or a thread behind."""
    before = left()
    yield
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        after = left()
        if len(after[0]) <= len(before[0]) and len(after[1]) <= len(before[1]):
            return
        time.sleep(0.01)
    assert after == before, "descriptors or threads were left behind"


@pytest.fixture(scope="session", autouse=True)
def background():
    """The background runtime (plain threads' timers) is there, with its watching thread, before anybody counts."""
    gort.go(lambda: None).join()


def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


def recv(sock, descriptor, n=65536, timeout=None):
    while True:
        try:
            return sock.recv(n)
        except BlockingIOError:
            descriptor.wait_read(timeout)


def send_all(sock, descriptor, data):
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            descriptor.wait_write()


def waiting(g):
    """Let others run until g is parked."""
    while g.state != "waiting":
        gort.sleep(0.001)


# -- waiting and waking -----------------------------------------------------------------------------------------


def test_a_reader_parks_and_is_woken(procs):
    """A goroutine that waits for data holds its thread, or is not woken by the data."""

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            g = gort.go(recv, a, d)
            waiting(g)
            assert g.wait_reason == f"I/O: read of descriptor {a.fileno()}"
            b.send(b"hello")
            assert g.result(5) == b"hello"
            d.close()

    run(main, procs)


def test_one_registration_for_life():
    """Each wait costs a system call to register."""

    def main():
        a, b = pair()
        calls = []
        with a, b:
            da, db = Descriptor(a), Descriptor(b)
            recv_first = gort.go(recv, a, da)
            waiting(recv_first)
            original = netpoll._Best._register
            netpoll._Best._register = lambda self, fd: (calls.append(fd), original(self, fd))
            try:

                def echo():
                    for _ in range(100):
                        b.send(recv(b, db))

                b.send(b"0")
                recv_first.join()
                g = gort.go(echo)
                for _ in range(100):
                    a.send(b"x")
                    assert recv(a, da) == b"x"
                g.result(5)
            finally:
                netpoll._Best._register = original
            assert calls in ([], [b.fileno()])
            da.close()
            db.close()

    run(main, 1)


def test_a_remembered_edge_is_not_lost(procs):
    """An event that comes while nobody waits is forgotten, and the next wait sleeps for ever."""

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            with pytest.raises(TimeoutError):
                d.wait_read(0.01)
            d.wait_write(5)
            b.send(b"x")
            gort.sleep(0.05)  # the poller has seen it by now: nobody waited
            d.wait_read(5)
            assert a.recv(1) == b"x"
            d.close()

    run(main, procs)


def test_readers_and_writers_apart(procs, jitter):
    """A goroutine that reads and one that writes the same socket disturb each other (behaviour 31)."""
    total = 4_000_000

    def pump(sock, d, byte):
        left = total
        while left:
            n = min(left, random.randrange(1, 200_000))
            send_all(sock, d, bytes([byte]) * n)
            left -= n

    def drain(sock, d, byte):
        got = 0
        while got < total:
            data = recv(sock, d, random.choice([1000, 65536]))
            assert data and data.count(byte) == len(data)
            got += len(data)
        return got

    def main():
        a, b = pair()
        with a, b:
            da, db = Descriptor(a), Descriptor(b)
            gs = [
                gort.go(pump, a, da, 1),
                gort.go(drain, b, db, 1),
                gort.go(pump, b, db, 2),
                gort.go(drain, a, da, 2),
            ]
            for g in gs:
                g.result(50)
            da.close()
            db.close()

    run(main, procs)


def test_many_waiters_of_one_direction(procs):
    """Of several readers of one descriptor one is forgotten when there is enough for all."""

    def main():
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        a.setblocking(False)
        with a, b:
            d = Descriptor(a)
            gs = [gort.go(recv, a, d) for _ in range(10)]
            for g in gs:
                waiting(g)
            for i in range(10):
                b.send(str(i).encode())
            assert sorted(g.result(5) for g in gs) == [str(i).encode() for i in range(10)]
            d.close()

    run(main, procs)


def test_a_waiter_in_the_middle_gives_up(procs):
    """A waiter that is cancelled takes another's ticket out of the queue with it."""

    def main():
        for victim in range(3):
            a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            a.setblocking(False)
            with a, b:
                d = Descriptor(a)
                gs = []
                for _ in range(3):
                    gs.append(gort.go(recv, a, d))
                    waiting(gs[-1])
                gs.pop(victim).cancel()
                gort.sleep(0.01)
                b.send(b"1")
                b.send(b"2")
                assert sorted(g.result(5) for g in gs) == [b"1", b"2"]
                d.close()

    run(main, procs)


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "udp", "unix", "pipe", "tty", "eventfd", "fifo"])
def test_every_kind_that_can_be_polled(kind, tmp_path):
    """A kind of descriptor that the system can poll cannot be waited for."""

    def open_pair():
        if kind in ("tcp", "tcp6"):
            family = socket.AF_INET if kind == "tcp" else socket.AF_INET6
            if kind == "tcp6" and not socket.has_dualstack_ipv6():
                pytest.skip("no IPv6 here")
            with socket.create_server(("127.0.0.1" if kind == "tcp" else "::1", 0), family=family) as server:
                client = socket.create_connection(server.getsockname()[:2])
                peer, _ = server.accept()
            return client.detach(), peer.detach()
        if kind == "udp":
            one, two = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            one.bind(("127.0.0.1", 0))
            two.connect(one.getsockname())
            return one.detach(), two.detach()
        if kind == "unix":
            return tuple(s.detach() for s in socket.socketpair())
        if kind == "pipe":
            return os.pipe()
        if kind == "tty":
            master, slave = pty.openpty()
            return slave, master
        if kind == "eventfd":
            fd = os.eventfd(0)
            return fd, os.dup(fd)
        path = tmp_path / "fifo"
        os.mkfifo(path)
        r = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return r, os.open(path, os.O_WRONLY)

    def main():
        r, w = open_pair()
        os.set_blocking(r, False)
        d = Descriptor(r)

        def read():
            while True:
                try:
                    return os.read(r, 8)
                except BlockingIOError:
                    d.wait_read()

        g = gort.go(read)
        waiting(g)
        os.write(w, (7).to_bytes(8, "little") if kind == "eventfd" else b"a line\n")
        assert g.result(5)
        d.close()
        os.close(r)
        os.close(w)

    run(main)


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_a_regular_file_is_refused_with_a_reason(where):
    """Waiting for a regular file fails with a bare "Operation not permitted", or hangs."""
    with tempfile.TemporaryFile() as f:
        d = Descriptor(f)
        if where == "goroutine":
            with pytest.raises(PermissionError, match="regular file.*gort.open") as info:
                run(d.wait_read)
            assert info.value.errno == errno.EPERM
        else:
            d.wait_read(5)  # poll(2) says what is true: it is ready


def test_bad_input_is_named():
    """A wrong argument is found out late, in the middle of the poller."""
    with pytest.raises(ValueError, match="fd must be the number of an open"):
        Descriptor(-1)
    with pytest.raises(TypeError, match="fd must be .* not str"):
        Descriptor("socket")
    with pytest.raises(OSError) as info:
        run(Descriptor(9999).wait_read)  # a number that nothing has
    assert info.value.errno == errno.EBADF
    a, b = pair()
    with a, b:
        d = Descriptor(a)
        for bad in ("1", int, object()):
            with pytest.raises(TypeError, match="timeout must be a number"):
                run(lambda bad=bad: d.wait_read(bad))
        with pytest.raises(ValueError, match="nan"):
            run(lambda: d.wait_read(float("nan")))


# -- time -------------------------------------------------------------------------------------------------------


def on(where, fn, procs=None):
    """Call fn in a goroutine, or in a plain thread."""
    if where == "goroutine":
        return run(fn, procs)
    return fn()


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_a_deadline(where):
    """A deadline does not end a wait, or one that is over lets a wait go on, or a cleared one does not (29)."""

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            d.set_deadline(time.monotonic() + 0.05)
            start = time.monotonic()
            with pytest.raises(TimeoutError, match="deadline"):
                d.wait_read()
            assert 0.05 <= time.monotonic() - start < 5
            b.send(b"x")
            with pytest.raises(TimeoutError, match="deadline"):  # though there is data
                d.wait_read()
            with pytest.raises(TimeoutError, match="deadline"):
                d.wait_write()
            d.set_deadline(None, write=False)
            with pytest.raises(TimeoutError, match="deadline"):
                d.wait_write()
            d.wait_read(5)
            assert a.recv(1) == b"x"
            with pytest.raises(TimeoutError, match="timed out after 0.02 s"):
                d.wait_read(0.02)
            d.close()

    on(where, main)


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_a_deadline_is_moved_while_somebody_waits(where, procs):
    """Who waits already does not notice that the deadline comes sooner, goes away, or has passed."""

    def wait(d):
        while True:
            d.wait_read()

    def begin(a, first):
        """Somebody who waits on a new descriptor; None if the first deadline was over before he could be seen."""
        d = Descriptor(a)
        if first is not None:
            d.set_deadline(time.monotonic() + first)
        ended = gort.Chan(1)

        def waits():
            try:
                wait(d)
            except OSError as exc:
                ended.send(type(exc))

        thread = threading.Thread(target=waits) if where == "thread" else None
        if thread:
            thread.start()
        else:
            gort.go(waits)
        while d.read.first is None:
            if len(ended):
                d.close()
                if thread:
                    thread.join()
                return None
            gort.sleep(0.001)
        return d, ended, thread

    def main():
        a, b = pair()
        with a, b:
            for first, then in [(None, 0.0), (None, -1.0), (None, 0.05), (60.0, 0.05), (0.05, 0.1), (0.05, None)]:
                while (begun := begin(a, first)) is None:
                    first *= 2  # on a busy machine
                d, ended, thread = begun
                start = time.monotonic()
                d.set_deadline(None if then is None else start + then)
                if then is None:
                    if not len(ended):  # else it was over a moment before
                        with pytest.raises(TimeoutError):
                            ended.recv(first)
                    d.close()
                    assert ended.recv(20) in (DescriptorClosed, TimeoutError)
                else:
                    assert ended.recv(20) is TimeoutError
                    assert time.monotonic() - start >= then or first is not None and first < 60
                    d.close()
                if thread:
                    thread.join()

    run(main, procs)


def test_a_deadline_moved_before_each_wait_costs_no_timer():
    """A program that sets a new deadline before each read fills the heap of timers."""

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            sched = gort.current().carrier.m.sched
            for i in range(1000):
                d.set_deadline(time.monotonic() + 100 + i)
                with pytest.raises(TimeoutError):
                    while True:  # (On a busy system g may have run on another machine, and ours was told of the byte as well.)
                        d.wait_read(0)
                g = settle(gort.go(recv, a, d))  # it waits, so it takes the news of what comes; else the next wait would
                b.send(b"x")
                assert g.result() == b"x"
            assert sum(len(p.timers.heap) for p in sched.allp) < 10
            d.close()
            assert sum(len(p.timers) for p in sched.allp) == 0

    run(main, 1)


def test_ten_thousand_time_outs_at_one_instant(procs):
    """Of many waits that end at once some are forgotten, or each costs a search through the others."""

    def main():
        a, b = pair()
        n = 10_000
        with a, b:
            descriptors = [Descriptor(a)]
            left = gort.Chan(n)

            def waits(d):
                try:
                    d.wait_read()
                except TimeoutError:
                    left.send(1)

            descriptors[0].set_deadline(time.monotonic() + 0.5)
            d = descriptors[0]
            for _ in range(n):
                gort.go(waits, d)
            start = time.monotonic()
            for _ in range(n):
                left.recv(30)
            assert time.monotonic() - start < 20
            d.close()

    run(main, procs)


def test_ten_thousand_separate_deadlines_at_one_instant():
    """The same for as many descriptors with a timer each."""

    def main():
        n = 2_000
        socks = [pair() for _ in range(n // 2)]
        ds = [Descriptor(s) for ab in socks for s in ab]
        when = time.monotonic() + 0.8
        left = gort.Chan(5 * n)

        def waits(d, own):
            try:
                d.wait_read(None if own is None else max(0, when - time.monotonic()))
            except TimeoutError:
                left.send(1)

        for d in ds:
            d.set_deadline(when)
            gort.go(waits, d, None)
            for _ in range(4):
                gort.go(waits, d, True)
        for _ in range(5 * n):
            left.recv(30)
        for d in ds:
            d.close()
        for a, b in socks:
            a.close()
            b.close()

    run(main)


# -- the end of a descriptor ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_close_wakes_whoever_waits(where, procs):
    """A wait outlives its descriptor, or ends as if its time were over (29)."""

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            d.set_deadline(time.monotonic() + 60)
            ended = gort.Chan(10)

            def waits(read):
                try:
                    if read:
                        d.wait_read()
                    else:
                        while True:
                            d.wait_write()
                except OSError as exc:
                    ended.send(exc)

            try:
                while True:
                    a.send(b"x" * 65536)
            except BlockingIOError:
                pass
            threads = []
            for read in (True, False, True):
                if where == "goroutine":
                    waiting(gort.go(waits, read))
                else:
                    threads.append(threading.Thread(target=waits, args=(read,)))
                    threads[-1].start()
            if where == "thread":
                while d.read.others is None or d.write.first is None:
                    gort.sleep(0.001)
            d.close()
            d.close()
            for _ in range(3):
                exc = ended.recv(5)
                assert type(exc) is DescriptorClosed and exc.errno == errno.EBADF and "closed" in str(exc)
            for thread in threads:
                thread.join()
            for wait in (d.wait_read, d.wait_write):
                with pytest.raises(DescriptorClosed):
                    wait()

    run(main, procs)


def test_a_reused_number_never_wakes_the_old_waiter(procs):
    """Data for a new socket of the same number wakes who waited for the old one (30)."""

    def main():
        for closed_by_owner in (True, False):
            a, b = pair()
            old = Descriptor(a)
            fd = a.fileno()
            first = gort.go(old.wait_read)
            waiting(first)
            if closed_by_owner:
                old.close()
                assert isinstance(first.exception(5), DescriptorClosed)
            a.close()  # else: by other code, and nobody knows
            c, e = socket.socketpair()
            if e.fileno() == fd:
                c, e = e, c
            assert c.fileno() == fd
            c.setblocking(False)
            new = Descriptor(c)
            second = gort.go(recv, c, new)
            waiting(second)
            # Its owner learns that the old one is gone as soon as the number is used again on its machine; or at
            # once, by closing it.
            old.close()
            assert isinstance(first.exception(5), DescriptorClosed)
            assert second.state == "waiting"
            e.send(b"for the new one")
            assert second.result(5) == b"for the new one"
            new.close()
            for s in (b, c, e):
                s.close()

    run(main, procs)


def test_closed_by_other_code():
    """Who waits for a number that other code closed keeps its deadline, and learns of the number's next use."""

    def main():
        a, b = pair()
        d = Descriptor(a)
        timed = gort.go(d.wait_read, 0.05)
        untimed = gort.go(d.wait_read)
        waiting(untimed)
        fd = a.fileno()
        os.close(a.detach())
        assert isinstance(timed.exception(5), TimeoutError)
        c, e = socket.socketpair()
        if e.fileno() == fd:
            c, e = e, c
        assert c.fileno() == fd
        new = Descriptor(c)
        with pytest.raises(TimeoutError):
            new.wait_read(0.01)
        assert isinstance(untimed.exception(5), DescriptorClosed)
        new.close()
        for s in (b, c, e):
            s.close()

    run(main, 1)


@pytest.mark.parametrize("seed", range(3))
def test_closing_beside_waiting(seed, procs, jitter):
    """A close that meets the beginning of a wait, on another machine, leaves the wait behind."""
    rng = random.Random(seed)

    def main():
        for _ in range(60 * STRESS):
            a, b = pair()
            d = Descriptor(a)
            gs = [gort.go(d.wait_read) for _ in range(rng.randrange(1, 4))]
            for _ in range(rng.randrange(3)):
                gort.gosched()
            closer = gort.go(d.close)
            if rng.random() < 0.5:
                b.send(b"x")
            closer.join(10)
            for g in gs:
                exc = g.exception(10)
                assert exc is None or isinstance(exc, DescriptorClosed)
            assert not d.pollers
            a.close()
            b.close()

    run(main, procs)


def test_cancel_time_out_and_event_race(procs, jitter):
    """Of a cancel, a time-out and an event that meet, two wake the same wait, or none does."""
    rng = random.Random(1)

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            for _ in range(150 * STRESS):
                g = gort.go(recv, a, d, 1, rng.choice([0.001, 0.002, 0.003, None]))
                gort.sleep(rng.choice([0, 0.001, 0.002]))
                if rng.random() < 0.5:
                    g.cancel()
                b.send(b"x")
                exc = g.exception(10)
                if exc is not None:
                    assert isinstance(exc, (TimeoutError, gort.Cancelled)), exc
                    assert recv(a, d, 1, 10) == b"x"
            d.close()

    run(main, procs)


# -- the scheduler's side ---------------------------------------------------------------------------------------


def test_no_deadlock_is_cried_while_somebody_waits_for_io():
    """A program whose goroutines all wait for I/O is called dead."""

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            threading.Timer(0.2, b.send, (b"x",)).start()
            assert recv(a, d) == b"x"
            d.close()
            del d

    run(main)


def test_a_thread_s_ready_wakes_a_machine_that_sleeps_in_its_poller(procs):
    """A machine asleep in epoll misses what another thread sends it."""

    def main():
        a, b = pair()
        ch = gort.Chan()
        with a, b:
            d = Descriptor(a)
            with pytest.raises(TimeoutError):
                d.wait_read(0.01)  # from now on it sleeps in the poller
            for i in range(50):
                thread = threading.Thread(target=lambda i=i: (time.sleep(0.001), ch.send(i)))
                thread.start()
                assert ch.recv(5) == i
                thread.join()
            d.close()

    run(main, procs)


def test_io_is_looked_at_while_goroutines_are_busy():
    """Two goroutines that wake each other for ever starve a third that waits for I/O."""

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            ping, pong = gort.Chan(), gort.Chan()

            def partner():
                for x in ping:
                    pong.send(x)

            def busy():
                while True:
                    ping.send(1)
                    pong.recv()

            gort.go(partner)
            gort.go(busy)
            g = gort.go(recv, a, d)
            waiting(g)
            b.send(b"x")
            start = time.monotonic()
            assert g.result(5) == b"x"
            assert time.monotonic() - start < 1
            d.close()

    run(main, 1)


def test_a_raising_signal_handler_loses_no_event():
    """A signal handler that raises in the scheduler, between the fetching of events and their delivery, loses them."""

    class Bang(Exception):
        pass

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            got = gort.Chan(1)
            g = gort.go(lambda: got.send(recv(a, d)))
            waiting(g)
            poller = gort.current().carrier.m.poller
            fetch = poller.fetch

            def interrupted(timeout):
                events = fetch(timeout)
                if events:
                    poller.fetch = fetch
                    raise Bang  # as if the handler ran just here; the events are gone
                return events

            poller.fetch = interrupted
            threading.Timer(0.05, b.send, (b"x",)).start()
            with pytest.raises(Bang):  # what a handler raises in the scheduler is main's
                gort.sleep(30)
            assert got.recv(5) == b"x"
            d.close()

    run(main, 1)


def test_signals_do_not_end_a_wait():
    """A signal that comes while the machine sleeps in its poller ends a wait (EINTR), or sleeps on after its handler."""
    came = []

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)

            def pester():
                for _ in range(20):
                    time.sleep(0.005)
                    os.kill(os.getpid(), signal.SIGUSR1)
                while len(came) < 20 and time.monotonic() < end:
                    time.sleep(0.001)
                    os.kill(os.getpid(), signal.SIGUSR1)
                b.send(b"x")

            end = time.monotonic() + 10
            thread = threading.Thread(target=pester)
            thread.start()
            assert recv(a, d) == b"x"
            thread.join()
            d.close()

    before = signal.signal(signal.SIGUSR1, lambda *_: came.append(1))
    try:
        run(main)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(came) >= 20


@pytest.mark.parametrize("owner", [False, True], ids=["bare", "in-a-block"])
def test_a_plain_thread_s_wait_may_be_interrupted_anywhere(owner):
    """A signal handler that raises leaves a descriptor open, or a ticket: later another's file is written to."""

    class Handler(Exception):
        pass

    a, b = pair()
    with a, b:
        d = Descriptor(a)
        left = 0

        def trace(frame, event, _arg):
            nonlocal left
            if frame.f_code.co_name != "_wait_thread":
                return None
            if event == "line" and d.read.latch:  # not under the latch
                left -= 1
                if not left:
                    raise Handler
            return trace

        def waits():
            with gort.timeout(100) if owner else nullcontext():
                while True:  # it may return for nothing
                    d.wait_read(0.001)

        with pytest.raises(TimeoutError):
            waits()
        before = os.listdir("/dev/fd")
        for line in range(1, 1000):
            left = line
            outer = sys.gettrace()
            sys.settrace(trace)
            try:
                waits()
            except Handler:
                pass
            except TimeoutError:
                break
            finally:
                sys.settrace(outer)
            assert os.listdir("/dev/fd") == before, line
            d.read.fire()  # which must find nobody, or one who does not mind
        assert 15 < line < 999
        b.send(b"x")
        d.wait_read(5)
        d.close()


def test_ctrl_c_reaches_main_in_its_wait():
    """Ctrl-C while main waits for I/O is lost, or leaves the wait behind."""

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            try:
                with pytest.raises(KeyboardInterrupt):
                    d.wait_read()
            finally:
                timer.join()
            assert d.read.first is None
            b.send(b"x")
            assert recv(a, d) == b"x"
            d.close()

    run(main)


def test_the_end_of_the_runtime_cancels_waits_and_closes_pollers(procs):
    """A program that ends while goroutines wait for I/O hangs, or leaves its pollers open."""
    a, b = pair()
    seen = []

    def waits(d):
        try:
            d.wait_read()
        finally:
            seen.append(1)

    def main():
        d = Descriptor(a)
        for _ in range(10):
            waiting(gort.go(waits, d))
        return d

    with a, b:
        d = run(main, procs)
        assert len(seen) == 10 and d.read.first is None and not d.pollers
        run(lambda: pytest.raises(TimeoutError, d.wait_read, 0.01), procs)  # and in another runtime
        d.close()


def test_no_poller_to_be_had(monkeypatch):
    """When the system gives no poller the runtime dies, or a connection is lost for want of a descriptor, of which there
    may be one in a moment: then the wait only pauses, and its caller tries again.  Anything else must fail the wait."""

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)

            def none(code):
                def fail(*_):
                    raise OSError(code, os.strerror(code))

                return fail

            with monkeypatch.context() as patch:
                for code in (errno.EMFILE, errno.ENFILE):
                    patch.setattr(os, "eventfd", none(code))
                    gort.go(d.wait_read).result(5)
                    with pytest.raises(TimeoutError):
                        gort.go(d.wait_read, 0).result(5)
                patch.setattr(os, "eventfd", none(errno.ENOMEM))
                with pytest.raises(OSError, match="memory"):
                    gort.go(d.wait_read).result(5)
            b.send(b"x")
            d.wait_read(5)
            d.close()

    with gort.Runtime(1) as runtime:  # whose machine has no poller yet, with or without a GIL
        runtime.run(main)


# -- numbers closed by other code ----------------------------------------------------------------------------------


@contextmanager
def closed_twice(what, reused):
    """What a poller's machine goes through whose numbers other code closes, and perhaps gets for itself."""
    poller = getcurrent().m.poller
    numbers = {"epoll": [poller.epoll.fileno()], "event": [poller.event], "both": [poller.epoll.fileno(), poller.event]}
    before = poller.epoll.fileno(), poller.event
    mine = []

    def close():
        for fd in numbers[what]:
            os.close(fd)
        for fd in numbers[what]:
            if reused == "pipe":
                mine.extend(os.pipe())
            elif reused == "epoll":
                mine.append(select.epoll())
            if reused:
                assert os.path.exists(f"/proc/self/fd/{fd}"), "taken by somebody else, or the test is wrong"

    yield close
    if reused and (poller.epoll.fileno(), poller.event) == before:  # the goroutine has gone on on another machine, and
        poller.wake()  # nobody has woken this one since, by which it is noticed at the latest
        while poller.epoll.fileno() == before[0]:
            gort.sleep(0.001)
    assert poller.epoll.fileno() != before[0] or poller.event != before[1] or not reused
    for fd in mine:  # nobody has closed them, or written to them
        if isinstance(fd, int):
            os.set_blocking(fd, False)
            assert os.fstat(fd)
        else:
            fd.close()
    for r in mine[::2] if reused == "pipe" else ():
        with pytest.raises(BlockingIOError):
            os.read(r, 1)
    for fd in mine:
        if isinstance(fd, int):
            os.close(fd)
    for fd in before:  # what was left of the old pair
        if fd not in numbers[what] and fd not in (poller.epoll.fileno(), poller.event):
            try:
                os.close(fd)
            except OSError:
                pass


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="of epoll")
@pytest.mark.parametrize("reused", [None, "pipe", "epoll"])
@pytest.mark.parametrize(
    ("what", "asleep"), [("epoll", False), ("event", False), ("both", False), ("epoll", True), ("event", True)]
)  # both, asleep: see the next test
def test_other_code_closes_a_machine_s_poller(what, reused, asleep, procs, capfd):
    """A program in which a number is closed once too often dies, spins, or hangs and says nothing."""
    def main():
        a, b = pair()
        c, e = pair()
        with a, b, c, e:
            d = Descriptor(a)
            old = gort.go(recv, a, d)
            waiting(old)
            own = Descriptor(b)
            own.wait_write(5)  # so that this very machine has a poller
            news = gort.Chan()
            m = getcurrent().m

            def woken(*before):
                """Sleep, and be woken by a thread that does this first."""

                def wakes():
                    while not m.asleep:
                        time.sleep(0.001)
                    for fn in before:
                        fn()
                    news.send("woken")

                thread = threading.Thread(target=wakes)
                thread.start()
                assert news.recv(20) == "woken"
                thread.join()

            with closed_twice(what, reused) as close:
                if asleep:
                    woken(close)
                else:
                    close()
                if reused == "epoll" and what != "event":  # another epoll in the place of ours is noticed by a wake-up only
                    woken()
                gort.sleep(0.01)
                new = Descriptor(c)
                other = gort.go(recv, c, new)
                waiting(other)
                for g, sock in ((old, b), (other, e)):  # sleeps until I/O, of an old one and a new one
                    sock.send(b"data")
                    assert g.result(20) == b"data"
                for _ in range(3):  # and until it is woken
                    woken()
                cpu = time.process_time()
                gort.sleep(0.06)
                assert time.process_time() - cpu < 0.05, "it spins"
            for each in (d, own, new):
                each.close()

    run(main, procs)
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="of epoll")
def test_other_code_closes_a_poller_and_no_descriptor_is_left(monkeypatch):
    """The machine dies for want of a descriptor for its new poller, which it could have a moment later."""
    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            g = gort.go(recv, a, d)
            waiting(g)
            poller = getcurrent().m.poller
            left = poller.event
            os.close(poller.epoll.fileno())
            failed = none_left(monkeypatch, 4)
            gort.sleep(0.001)
            b.send(b"x")
            assert g.result(20) == b"x" and failed
            while len(failed) < 4:  # what was sent had come before it tried again: so it waits once more
                g = gort.go(recv, a, d)
                gort.sleep(0.001)
                b.send(b"x")
                assert g.result(20) == b"x"
            d.close()
        os.close(left)

    run(main, 1)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("which", ["first", "last"])
def test_a_descriptor_gets_a_poller_s_number(which, full, monkeypatch):
    """Other code closes one of our numbers, and the next connection gets it: then a wake-up is lost, and the program hangs;
    or it meets an error of ours, since there is no descriptor for a new poller just then."""

    def main():
        a, b = pair()
        c, e = pair()
        with a, b, c, e:
            own = Descriptor(b)
            own.wait_write(5)  # so that this very machine has a poller
            m = getcurrent().m
            before = m.poller._numbers()
            fd = os.dup2(c.fileno(), before[0 if which == "first" else -1])
            with socket.socket(fileno=fd) as sock:
                if full:
                    none_left(monkeypatch, 3)
                d = Descriptor(sock)
                g = gort.go(recv, sock, d)
                waiting(g)
                news = gort.Chan(1)

                def other():
                    while not m.asleep:
                        time.sleep(0.001)
                    news.send("woken")

                thread = threading.Thread(target=other)
                thread.start()
                assert news.recv() == "woken"  # (a time-out of its own would wake the machine)
                thread.join()
                e.send(b"data")
                assert g.result(20) == b"data"
                d.close()
            own.close()
            for number in set(before) - {fd, *m.poller._numbers()}:
                os.close(number)

    run(main, 1)


def none_left(monkeypatch, times):
    """So many times the system has no descriptor for a new poller."""
    name = "kqueue" if hasattr(select, "kqueue") else "epoll"
    real = getattr(select, name)
    failed = []

    def none(*_):
        failed.append(1)
        if len(failed) >= times:
            monkeypatch.setattr(select, name, real)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(select, name, none)
    return failed


def test_two_machines_find_each_other_s_old_descriptors():
    """Numbers are reused behind the back of two machines at the same time: each holds its poller's lock, and takes the
    other's to have the old descriptor forgotten there; both hang."""
    pollers = [netpoll.new_poller() for _ in range(2)]
    both = threading.Barrier(2)

    class Old(Descriptor):
        def close(self):
            both.wait(20)
            super().close()

    pairs = [pair() for _ in range(2)]
    for a, _ in pairs:
        old = Old(a)
        for poller in pollers:
            poller.add(old)
    threads = [
        threading.Thread(target=poller.add, args=[Descriptor(a)], daemon=True) for poller, (a, _) in zip(pollers, pairs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    for poller in pollers:
        poller.close()
    for a, b in pairs:
        a.close()
        b.close()


def test_no_new_poller_is_to_be_had_for_long(monkeypatch):
    """Then the machine sleeps in each look for I/O, though it has goroutines that are ready."""
    from gort.runtime import poller as module

    poller = netpoll.new_poller()
    numbers = poller._numbers()
    os.close(numbers[0])
    naps = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=naps.append))
    with monkeypatch.context() as patch:
        none_left(patch, 100)
        assert poller.fetch(0) == [] and not naps
        assert poller.fetch(5) == [] and naps == [module.PAUSE]
    assert poller.fetch(5) == [] and poller.lost and len(naps) == 1
    poller.close()
    for number in numbers[1:]:
        os.close(number)


def test_the_new_owner_of_a_number_cannot_be_waited_for():
    """Who waits for what has been closed behind his back, and whose number is a file's by now, is never told."""

    def main():
        a, b = pair()
        with b:
            d = Descriptor(a)
            g = gort.go(d.wait_read)
            waiting(g)
            number = a.detach()
            with open(__file__, "rb") as file:
                os.dup2(file.fileno(), number)
            with pytest.raises(PermissionError):
                Descriptor(number).wait_read(5)
            assert isinstance(g.exception(20), DescriptorClosed)
            os.close(number)

    run(main, 1)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="of epoll")
def test_other_code_closes_all_that_a_sleeping_machine_could_be_woken_by(capfd):
    """It hangs, and nobody is told why; or is lost although I/O could still wake it."""
    poller = netpoll.new_poller()
    fds = poller.epoll.fileno(), poller.event
    for fd in fds:
        os.close(fd)
    poller.wake()
    poller.wake()
    message = capfd.readouterr().err
    assert message.count("\n") == 1 and f"closed descriptors {fds[0]} and {fds[1]}" in message
    assert poller.fetch(5) == [] and poller.lost  # a new one
    poller.wake()
    assert poller.fetch(5)
    poller.close()

    def main():
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            own = Descriptor(b)
            own.wait_write(5)
            m = getcurrent().m
            fds = m.poller.epoll.fileno(), m.poller.event
            news = gort.Chan(2)

            def closes():
                while not m.asleep:
                    time.sleep(0.001)
                for fd in fds:
                    os.close(fd)
                news.send("lost")
                news.send("lost")
                b.send(b"x")

            thread = threading.Thread(target=closes)
            gort.go(lambda: (thread.start(), recv(a, d)))
            assert news.recv() == "lost" and news.recv() == "lost"
            thread.join()
            d.close()
            own.close()

    run(main, 1)


# -- the plain version and the fast one -------------------------------------------------------------------------


class Log:
    """A waiter that writes down what happens to it."""

    asleep = False

    def __init__(self):
        self.ready = self.m = self
        self.woken = 0

    def append(self, _):
        self.woken += 1


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="of epoll")
@pytest.mark.parametrize("waiters", [0, 1, 2, 3])
@pytest.mark.parametrize("bits", [1, 4, 5, 0x10, 8, 0x2001, 0x2015])
@pytest.mark.parametrize("seated", [False, True])
def test_epoll_s_fast_fire_does_what_the_plain_one_does(waiters, bits, seated):
    """EpollPoller.fire's inlined cases differ from Direction.fire."""

    def outcome(fast):
        a, b = pair()
        with a, b:
            d = Descriptor(a)
            logs = []
            for side in (d.read, d.write):
                for _ in range(waiters):
                    logs.append(Log())
                    side.publish([logs[-1], None, side, None])
            if seated:
                logs.append(Log())
                d.read.appoint(logs[-1])
                d.read.seat.append(logs[-1])
            if fast:
                poller = netpoll.new_poller()
                try:
                    poller.descriptors[d.fd] = d
                    poller.fire([(d.fd, bits)])
                finally:
                    poller.close()
            else:
                if bits & ~select.EPOLLOUT:
                    d.read.fire()
                if bits & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP):
                    d.write.fire()
            state = [(s.edge, s.first is None, len(s.others or ()), len(s.seat or ()), len(s.latch)) for s in (d.read, d.write)]
            return [log.woken for log in logs], state

    assert outcome(True) == outcome(False)


# -- kqueue, as far as a machine without one can tell -------------------------------------------------------------


@pytest.fixture
def kqueue(monkeypatch):
    real = select.epoll
    made = []

    def new():
        made.append(FakeKqueue())
        return made[-1]

    for name, value in {**FAKES, "kqueue": new}.items():
        monkeypatch.setattr(select, name, value, raising=False)
    assert real is select.epoll
    for module in (netpoll, interrupt):
        monkeypatch.setattr(module, "new_poller", KqueuePoller)
    return made


@pytest.mark.skipif(hasattr(select, "kqueue"), reason="the real kqueue is what the other tests use")
@pytest.mark.parametrize(
    "test",
    [
        test_a_reader_parks_and_is_woken,
        test_a_remembered_edge_is_not_lost,
        test_readers_and_writers_apart,
        test_close_wakes_whoever_waits,
        test_a_reused_number_never_wakes_the_old_waiter,
        test_a_thread_s_ready_wakes_a_machine_that_sleeps_in_its_poller,
        test_the_end_of_the_runtime_cancels_waits_and_closes_pollers,
        test_a_descriptor_gets_a_poller_s_number,
        test_the_new_owner_of_a_number_cannot_be_waited_for,
    ],
)
def test_kqueue_s_poller(kqueue, test, monkeypatch):
    """KqueuePoller does not do what EpollPoller does."""
    from inspect import signature

    args = {"procs": 2, "jitter": None, "where": "goroutine", "which": "first", "full": True, "monkeypatch": monkeypatch}
    test(**{name: args[name] for name in signature(test).parameters})
    assert kqueue


@pytest.mark.skipif(hasattr(select, "kqueue"), reason="would use the real one")
def test_kqueue_refuses_a_regular_file(kqueue, tmp_path):
    """kqueue takes regular files, and says nothing at their end: a reader there would wait for ever."""
    (tmp_path / "file").write_bytes(b"x")

    def main():
        with open(tmp_path / "file", "rb") as file, pytest.raises(PermissionError, match="gort.open"):
            netpoll.Descriptor(file).wait_read(5)

    gort.run(main)
    assert kqueue


@pytest.mark.skipif(hasattr(select, "kqueue"), reason="would use the real one")
def test_kqueue_s_wake_ups_do_not_pile_up(kqueue):
    """The pipe that wakes a kqueue poller fills up, and then a wake-up is lost."""
    poller = KqueuePoller()
    try:
        for _ in range(100_000):
            poller.wake()
        poller.fire(poller.fetch(5))
        poller.wake()
        assert poller.fetch(5)
    finally:
        poller.close()
    poller.wake()  # after the close: nothing happens


def test_a_wake_up_after_the_end_writes_to_nobody():
    """A late wake-up writes into a descriptor that has got the poller's old number."""
    poller = netpoll.new_poller()
    numbers = set(os.listdir("/proc/self/fd"))
    poller.close()
    files = []
    while len(os.listdir("/proc/self/fd")) < len(numbers):
        files.append(tempfile.TemporaryFile())
    poller.wake()
    assert all(os.fstat(f.fileno()).st_size == 0 for f in files)
    for f in files:
        f.close()


def test_a_bell_pipe_never_fills_up():
    """The pipe that signals are written to (without a GIL) is never read: after 65,536 signals the next is missed."""
    poller = netpoll.new_poller()
    r, w = os.pipe()
    os.set_blocking(r, False)
    os.set_blocking(w, False)
    try:
        poller.add_bell(r, lambda: None)
        for _ in range(3):
            try:
                while True:
                    os.write(w, b"x" * 4096)
            except BlockingIOError:
                pass
            poller.fire(poller.fetch(5))
        os.write(w, b"x")
        assert poller.fetch(5)
    finally:
        poller.close()
        os.close(r)
        os.close(w)


