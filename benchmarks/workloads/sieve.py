"""The prime sieve: the classic chain of goroutines, one for each prime found so far.

A generator sends 2, 3, 4, ... into the first channel. Each filter receives from one channel and sends
what its prime does not divide into the next. For the 300th prime, 1987, that is 300 goroutines and
some 49,000 messages over unbuffered channels: a program that is nothing but scheduling, and whose
chain grows while it runs.

Where a library has no unbuffered queue, one of a single place stands for it, which lets a filter
run one message ahead (fewer switches: to their advantage). Threads do the same with queue.Queue(1).
"""

from benchmarks.workload import Point, Workload


def in_gort(meter, n):
    from itertools import count

    from gort import Chan, go

    def generate(out):
        for i in count(2):
            out.send(i)

    def sift(source, out, prime):
        for i in source:
            if i % prime:
                out.send(i)

    with meter:
        channel = Chan()
        go(generate, channel)
        for _ in range(n):
            prime = channel.recv()
            following = Chan()
            go(sift, channel, following, prime)
            channel = following


async def in_asyncio(meter, n):
    from asyncio import Queue, create_task
    from itertools import count

    async def generate(out):
        for i in count(2):
            await out.put(i)

    async def sift(source, out, prime):
        while True:
            i = await source.get()
            if i % prime:
                await out.put(i)

    tasks = []
    with meter:
        queue = Queue(1)
        tasks.append(create_task(generate(queue)))
        for _ in range(n):
            prime = await queue.get()
            following = Queue(1)
            tasks.append(create_task(sift(queue, following, prime)))
            queue = following
    for task in tasks:
        task.cancel()


def in_gevent(meter, n):
    from itertools import count

    import gevent
    from gevent.queue import Channel

    def generate(out):
        for i in count(2):
            out.put(i)

    def sift(source, out, prime):
        for i in source:
            if i % prime:
                out.put(i)

    spawned = []
    with meter:
        channel = Channel()
        spawned.append(gevent.spawn(generate, channel))
        for _ in range(n):
            prime = channel.get()
            following = Channel()
            spawned.append(gevent.spawn(sift, channel, following, prime))
            channel = following
    gevent.killall(spawned)


async def in_trio(meter, n):
    from itertools import count

    import trio

    async def generate(out):
        for i in count(2):
            await out.send(i)

    async def sift(source, out, prime):
        async for i in source:
            if i % prime:
                await out.send(i)

    async with trio.open_nursery() as nursery:
        with meter:
            out, source = trio.open_memory_channel(0)
            nursery.start_soon(generate, out)
            for _ in range(n):
                prime = await source.receive()
                out, following = trio.open_memory_channel(0)
                nursery.start_soon(sift, source, out, prime)
                source = following
        nursery.cancel_scope.cancel()


def in_threads(meter, n):
    from itertools import count
    from queue import Queue
    from threading import Event, Thread

    ended = Event()

    def generate(out):
        for i in count(2):
            out.put(i)
            if ended.is_set():
                return out.put(None)

    def sift(source, out, prime):
        while (i := source.get()) is not None:
            if i % prime:
                out.put(i)
        out.put(None)

    threads = []
    with meter:
        queue = Queue(1)
        threads.append(Thread(target=generate, args=(queue,)))
        threads[0].start()
        for _ in range(n):
            prime = queue.get()
            following = Queue(1)
            threads.append(Thread(target=sift, args=(queue, following, prime)))
            threads[-1].start()
            queue = following
    ended.set()
    while queue.get() is not None:
        pass
    for thread in threads:
        thread.join()


WORKLOADS = [
    Workload(
        name="sieve",
        title="prime sieve",
        story="Find the first n primes with a chain of goroutines and unbuffered channels, one for each prime.",
        per=None,
        axis="primes",
        points=[Point(100), Point(300)],
        quick=[Point(50), Point(100)],
        warm=lambda point: Point(20),
        contenders={
            "gort": in_gort,
            "asyncio": in_asyncio,
            "gevent": in_gevent,
            "trio": in_trio,
            "threading": in_threads,
        },
    )
]
