"""Parked: n goroutines that have started and now wait, and what each of them holds.

The clock runs from the first start until the last has arrived at its wait, and the memory is what
the resident set has grown by then. What comes after (opening the gate, letting all of them end) is
not in the time, and where the harness runs it in a process of its own does not happen at all. All wait
on one gate, in the way each library has for "everybody may go on now".

The limit is a bare greenlet suspended in one function call. A coroutine needs less than any of
them, for it has no stack of its own: asyncio's small number here is the price list of `async def`.

The memory of a greenlet depends on how deep it is suspended; here it is one call of the library's
own deep, which is the least it can be. The first time is the true one (memory that was used before
would be found again), so this work is never repeated within a process, and its warm-up is tiny.

Threads stop at 1,000, for many systems do not let a user have 10,000. A million are parked
by gort and asyncio only: whether its own cost stays level is the question, and asyncio's tasks, which have no stack, tell
what of that is the garbage collector's; the others would take most of the run's time.
"""

from benchmarks.workload import Point, Workload


def in_gort(meter, n):
    from gort import Chan, go

    arrived, full, gate = [], Chan(1), Chan()

    def wait():
        arrived.append(None)
        if len(arrived) == n:
            full.try_send(None)
        gate.recv_ok()

    with meter:
        for _ in range(n):
            go(wait)
        full.recv()
    gate.close()


def in_bare(meter, n):
    from greenlet import getcurrent, greenlet

    switch = getcurrent().switch

    def wait():
        switch()

    with meter:
        parked = [greenlet(wait) for _ in range(n)]
        for made in parked:
            made.switch()
    for made in parked:
        made.switch()


async def in_asyncio(meter, n):
    from asyncio import Event, create_task, sleep

    arrived, gate = [], Event()

    async def wait():
        arrived.append(None)
        await gate.wait()

    with meter:
        tasks = [create_task(wait()) for _ in range(n)]
        while len(arrived) < n:
            await sleep(0)
    gate.set()
    for task in tasks:
        await task


def in_gevent(meter, n):
    import gevent
    from gevent.event import Event

    arrived, gate = [], Event()

    def wait():
        arrived.append(None)
        gate.wait()

    with meter:
        spawned = [gevent.spawn(wait) for _ in range(n)]
        while len(arrived) < n:
            gevent.sleep(0)
    gate.set()
    gevent.joinall(spawned)


async def in_trio(meter, n):
    import trio

    arrived, gate = [], trio.Event()

    async def wait():
        arrived.append(None)
        await gate.wait()

    async with trio.open_nursery() as nursery:
        with meter:
            for _ in range(n):
                nursery.start_soon(wait)
            while len(arrived) < n:
                await trio.lowlevel.checkpoint()
        gate.set()


def in_threads(meter, n):
    from threading import Event, Thread

    arrived, full, gate = [], Event(), Event()

    def wait():
        arrived.append(None)
        if len(arrived) == n:
            full.set()
        gate.wait()

    threads = []
    try:
        with meter:
            for _ in range(n):
                thread = Thread(target=wait)
                thread.start()
                threads.append(thread)
            full.wait()
    finally:
        gate.set()  # also when the system refuses another thread, or those that run would hang
        for thread in threads:
            thread.join()


WORKLOADS = [
    Workload(
        name="parked",
        title="n parked at once",
        story="Start n goroutines that all wait for one gate, until the last has arrived there.",
        per="goroutine",
        axis="goroutines",
        metrics=("time", "memory"),
        points=[Point(1_000), Point(10_000), Point(100_000), Point(1_000_000)],
        quick=[Point(1_000), Point(10_000)],
        caps={
            "threading": 1_000,
            **dict.fromkeys(("gort-p1", "bare", "uvloop", "gevent", "trio"), 100_000),
        },
        capped={
            1_000: "many systems do not let a user have 10,000 threads",
            100_000: "a million shows whether gort's cost stays level, beside tasks without a stack; "
            "the others would take most of the run's time",
        },
        warm=lambda point: Point(16),
        repeat=False,
        abandon=True,
        reason="A goroutine has a stack, a coroutine has none: the first start of a greenlet maps 16 KiB for its "
        "Python frames, and while it waits it keeps what it uses of them and of the C stack. The limit is what greenlets "
        "alone cost of that. Of a million each costs more than of 100,000: the garbage collector walks all that are there "
        "again and again, which doubles what asyncio's tasks cost, and the kernel clears two new pages for each.",
        bytes_each=9_000,
        lean=dict.fromkeys(("asyncio", "uvloop"), 1_500),
        contenders={
            "gort": in_gort,
            "bare": in_bare,
            "asyncio": in_asyncio,
            "gevent": in_gevent,
            "trio": in_trio,
            "threading": in_threads,
        },
    )
]
