"""A mutex, without contention and with it.

`mutex` locks and unlocks one that nobody else wants: what a careful program pays all day long for being
careful. The library's lock is used the way its documentation shows first, which is `with` everywhere.

`mutex-contended` has ten goroutines that want the same mutex. Inside it each gives way once, so that
the others do run into it: without that, cooperative libraries would never see a waiter, and the
first workload would be measured again. One operation is one passage through the mutex, with the yield
in it. The libraries differ in whom they let in next (asyncio, trio: strictly first come, first served, so each
passage is a switch to another task), which is part of what their lock is; nobody is starved for long in any.

gevent has no lock of its own name for this: its documentation points to BoundedSemaphore(1), since its RLock
remembers an owner, which nobody here needs. threading.Lock is a rival like the others: whoever has
threads only uses it as it is here. (It is in C, and no scheduler looks at it.) Neither workload has a limit beside it;
with contention it would be the switch itself, which `gosched` shows.
"""

from benchmarks.workload import Point, Workload

# --- nobody else wants it


def alone_in_gort(meter, n):
    from gort import Mutex

    mutex = Mutex()
    with meter:
        for _ in range(n):
            with mutex:
                pass


async def alone_in_asyncio(meter, n):
    from asyncio import Lock

    lock = Lock()
    with meter:
        for _ in range(n):
            async with lock:
                pass


def alone_in_gevent(meter, n):
    from gevent.lock import BoundedSemaphore

    lock = BoundedSemaphore(1)
    with meter:
        for _ in range(n):
            with lock:
                pass


async def alone_in_trio(meter, n):
    import trio

    lock = trio.Lock()
    with meter:
        for _ in range(n):
            async with lock:
                pass


def alone_in_threads(meter, n):
    from threading import Lock

    lock = Lock()
    with meter:
        for _ in range(n):
            with lock:
                pass


# --- ten want it


def crowd_in_gort(meter, n, size):
    from gort import Mutex, go, gosched

    mutex = Mutex()

    def pass_through():
        for _ in range(n // size):
            with mutex:
                gosched()

    with meter:
        started = [go(pass_through) for _ in range(size)]
        for goroutine in started:
            goroutine.result()


async def crowd_in_asyncio(meter, n, size):
    from asyncio import Lock, create_task, sleep

    lock = Lock()

    async def pass_through():
        for _ in range(n // size):
            async with lock:
                await sleep(0)

    with meter:
        for task in [create_task(pass_through()) for _ in range(size)]:
            await task


def crowd_in_gevent(meter, n, size):
    import gevent
    from gevent.lock import BoundedSemaphore

    lock = BoundedSemaphore(1)

    def pass_through():
        for _ in range(n // size):
            with lock:
                gevent.sleep(0)

    with meter:
        gevent.joinall([gevent.spawn(pass_through) for _ in range(size)])


async def crowd_in_trio(meter, n, size):
    import trio

    lock = trio.Lock()

    async def pass_through():
        for _ in range(n // size):
            async with lock:
                await trio.lowlevel.checkpoint()

    with meter:
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(pass_through)


def crowd_in_threads(meter, n, size):
    from threading import Lock, Thread
    from time import sleep

    lock = Lock()

    def pass_through():
        for _ in range(n // size):
            with lock:
                sleep(0)

    with meter:
        threads = [Thread(target=pass_through) for _ in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


WORKLOADS = [
    Workload(
        name="mutex",
        title="lock and unlock a mutex nobody else wants",
        story="Main enters and leaves a mutex n times. threading.Lock is in C and makes a thread wait, so no scheduler looks "
        "at it; the others are their libraries' own.",
        per="passage",
        points=[Point(200_000)],
        quick=[Point(50_000)],
        labels={"threading": "threading.Lock"},
        reason="threading.Lock is C, called without a Python frame; gort's mutex is Python: two calls of its own.",
        contenders={
            "gort": alone_in_gort,
            "asyncio": alone_in_asyncio,
            "gevent": alone_in_gevent,
            "trio": alone_in_trio,
            "threading": alone_in_threads,
        },
    ),
    Workload(
        name="mutex-contended",
        title="ten that want one mutex",
        story="Ten goroutines enter and leave one mutex, n times in all, and give way once inside it.",
        per="passage",
        reason="gevent's semaphore is Cython, and lets in whoever runs; gort's waiters of more than a millisecond are "
        "handed the mutex, as in Go, which is a switch each. In a profile it is all park, hand-over and switch.",
        points=[Point(20_000, 10)],
        quick=[Point(10_000, 10)],
        contenders={
            "gort": crowd_in_gort,
            "asyncio": crowd_in_asyncio,
            "gevent": crowd_in_gevent,
            "trio": crowd_in_trio,
            "threading": crowd_in_threads,
        },
    ),
]
