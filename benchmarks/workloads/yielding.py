"""Giving way: goroutines that do nothing but let the next one run.

One operation is one call of gosched, which is one switch from a goroutine to the next. The limit is
bare greenlets in a ring, each of which switches straight to its neighbour: the least that a switch
can cost.

The number of goroutines matters to loops that look at the clock and for I/O once in every turn: with
two, that is half of each call's cost; with a hundred it is lost in the crowd. So it is the axis.

asyncio's `sleep(0)`, gevent's `sleep(0)` and trio's `checkpoint()` are those libraries' ways to say the
same. Threads say it with `time.sleep(0)`, which gives up the GIL where there is one; how often that
really leads to another thread is the operating system's affair.
"""

from benchmarks.workload import Point, Workload


def in_gort(meter, n, size):
    from gort import go, gosched

    def spin():
        for _ in range(n // size):
            gosched()

    with meter:
        started = [go(spin) for _ in range(size)]
        for goroutine in started:
            goroutine.join()


def in_bare(meter, n, size):
    from greenlet import greenlet

    ring = []

    def spin(place):
        switch = ring[(place + 1) % size].switch
        for _ in range(n // size):
            switch(place + 1)

    # The first switch to a greenlet starts it and hands it its place, later ones only wake it.
    # The first greenlet to end its loop ends the work: its parent is this one.
    ring.extend(greenlet(spin) for _ in range(size))
    with meter:
        ring[0].switch(0)


async def in_asyncio(meter, n, size):
    from asyncio import create_task, sleep

    async def spin():
        for _ in range(n // size):
            await sleep(0)

    with meter:
        tasks = [create_task(spin()) for _ in range(size)]
        for task in tasks:
            await task


def in_gevent(meter, n, size):
    import gevent

    def spin():
        for _ in range(n // size):
            gevent.sleep(0)

    with meter:
        gevent.joinall([gevent.spawn(spin) for _ in range(size)])


async def in_trio(meter, n, size):
    import trio

    async def spin():
        for _ in range(n // size):
            await trio.lowlevel.checkpoint()

    with meter:
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(spin)


def in_threads(meter, n, size):
    from threading import Thread
    from time import sleep

    def spin():
        for _ in range(n // size):
            sleep(0)

    with meter:
        threads = [Thread(target=spin) for _ in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


WORKLOADS = [
    Workload(
        name="gosched",
        title="give way to the next",
        story="A number of goroutines do nothing but give way to each other, n times in all.",
        per="call",
        axis="goroutines",
        points=[Point(50_000, 2), Point(50_000, 100)],
        quick=[Point(50_000, 10)],
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
