"""Messages: the round trip over two unbuffered channels, the stream through a buffered one, and
many producers into one channel.

Each library uses its own nearest thing to a Go channel:

    gort       Chan
    gevent     Channel (no buffer), SimpleQueue with a bound (its fastest bounded queue)
    trio       a memory channel, which is unbuffered or bounded as a Go channel is
    asyncio    Queue. It has no unbuffered one. In the round trip an unbounded queue does as well, as
               the answer is waited for, and `put_nowait` is its fastest use
    threading  queue.SimpleQueue (in C) where no bound is needed, queue.Queue where one is

So in `unbuffered` only gort's, gevent's and trio's channels are really unbuffered. asyncio and threads have nothing of
the kind, and of what they have an unbounded queue is the fastest; a queue of a single place would be no nearer to what
is asked. gevent and trio would be faster with a buffer as well (by a sixth and by a quarter of the CPU time), but they
have the real thing, which is what is asked.

The limit of the round trip is two greenlets that switch to each other by hand. The limit of the
buffered stream is a bare greenlet that fills a deque of 128 and switches.
"""

from benchmarks.workload import Point, Workload, with_args

# --- a round trip: main sends, the other party sends back


def trip_in_gort(meter, n):
    from gort import Chan, go

    there, back = Chan(), Chan()

    def echo():
        for value in there:
            back.send(value)

    go(echo)
    with meter:
        for i in range(n):
            there.send(i)
            back.recv()
    there.close()


def trip_in_bare(meter, n):
    from greenlet import getcurrent, greenlet

    main = getcurrent()

    def echo(value):
        while value is not None:
            value = main.switch(value)

    other = greenlet(echo)
    with meter:
        for i in range(n):
            other.switch(i)
    other.switch(None)


async def trip_in_asyncio(meter, n):
    from asyncio import Queue, create_task

    there, back = Queue(), Queue()

    async def echo():
        while True:
            back.put_nowait(await there.get())

    task = create_task(echo())
    with meter:
        for i in range(n):
            there.put_nowait(i)
            await back.get()
    task.cancel()


def trip_in_gevent(meter, n):
    import gevent
    from gevent.queue import Channel

    there, back = Channel(), Channel()

    def echo():
        for value in there:
            back.put(value)

    other = gevent.spawn(echo)
    with meter:
        for i in range(n):
            there.put(i)
            back.get()
    there.put(StopIteration)
    other.join()


async def trip_in_trio(meter, n):
    import trio

    send_there, receive_there = trio.open_memory_channel(0)
    send_back, receive_back = trio.open_memory_channel(0)

    async def echo():
        async for value in receive_there:
            await send_back.send(value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        with meter:
            for i in range(n):
                await send_there.send(i)
                await receive_back.receive()
        send_there.close()


def trip_in_threads(meter, n):
    from queue import SimpleQueue
    from threading import Thread

    there, back = SimpleQueue(), SimpleQueue()

    def echo():
        while (value := there.get()) is not None:
            back.put(value)

    other = Thread(target=echo)
    other.start()
    with meter:
        for i in range(n):
            there.put(i)
            back.get()
    there.put(None)
    other.join()


# --- a stream of items from `producers` through a channel of `bound`, received by main


def stream_in_gort(meter, n, producers, bound):
    from gort import Chan, go

    channel = Chan(bound)

    def produce(count):
        for i in range(count):
            channel.send(i)

    with meter:
        for _ in range(producers):
            go(produce, n // producers)
        for _ in range(n // producers * producers):
            channel.recv()


def stream_in_bare(meter, n, producers, bound):
    from collections import deque

    from greenlet import getcurrent, greenlet

    main, buffer = getcurrent(), deque()

    def produce(count):
        for i in range(count):
            if len(buffer) == bound:
                main.switch()
            buffer.append(i)

    with meter:
        other = greenlet(produce)
        other.switch(n)
        for _ in range(n):
            if not buffer:
                other.switch()
            buffer.popleft()


async def stream_in_asyncio(meter, n, producers, bound):
    from asyncio import Queue, create_task

    queue = Queue(bound)

    async def produce(count):
        for i in range(count):
            await queue.put(i)

    with meter:
        tasks = [create_task(produce(n // producers)) for _ in range(producers)]
        for _ in range(n // producers * producers):
            await queue.get()
    for task in tasks:
        await task


def stream_in_gevent(meter, n, producers, bound):
    import gevent
    from gevent.queue import Channel, SimpleQueue

    queue = SimpleQueue(bound) if bound else Channel()

    def produce(count):
        for i in range(count):
            queue.put(i)

    with meter:
        spawned = [gevent.spawn(produce, n // producers) for _ in range(producers)]
        for _ in range(n // producers * producers):
            queue.get()
    gevent.joinall(spawned)


async def stream_in_trio(meter, n, producers, bound):
    import trio

    send, receive = trio.open_memory_channel(bound)

    async def produce(count):
        for i in range(count):
            await send.send(i)

    async with trio.open_nursery() as nursery:
        with meter:
            for _ in range(producers):
                nursery.start_soon(produce, n // producers)
            for _ in range(n // producers * producers):
                await receive.receive()


def stream_in_threads(meter, n, producers, bound):
    from queue import Queue
    from threading import Thread

    queue = Queue(bound)

    def produce(count):
        for i in range(count):
            queue.put(i)

    with meter:
        threads = [Thread(target=produce, args=(n // producers,)) for _ in range(producers)]
        for thread in threads:
            thread.start()
        for _ in range(n // producers * producers):
            queue.get()
    for thread in threads:
        thread.join()


_STREAMS = {
    "gort": stream_in_gort,
    "asyncio": stream_in_asyncio,
    "gevent": stream_in_gevent,
    "trio": stream_in_trio,
    "threading": stream_in_threads,
}


WORKLOADS = [
    Workload(
        name="unbuffered",
        title="round trip over two unbuffered channels",
        story="Main sends a value to another goroutine and receives it back. gort, gevent and trio do it over unbuffered "
        "channels, which is what is asked. asyncio and threads have none: theirs are unbounded queues, the fastest that "
        "they have, which serve as well where each message is answered.",
        per="round trip",
        points=[Point(50_000)],
        quick=[Point(10_000)],
        contenders={
            "gort": trip_in_gort,
            "bare": trip_in_bare,
            "asyncio": trip_in_asyncio,
            "gevent": trip_in_gevent,
            "trio": trip_in_trio,
            "threading": trip_in_threads,
        },
    ),
    Workload(
        name="buffered",
        title="item through a channel of 128",
        story="One goroutine sends n items through a channel with a buffer of 128, main receives them.",
        per="item",
        reason="gevent's queue is compiled (Cython), for one thread; gort's channel is Python, between threads too. A "
        "profile finds nothing but send and recv themselves, a third of them the channel's lock.",
        points=[Point(200_000)],
        quick=[Point(50_000)],
        contenders={
            name: with_args(fn, producers=1, bound=128)
            for name, fn in {"bare": stream_in_bare, **_STREAMS}.items()
        },
    ),
    Workload(
        name="fan-in",
        title="100 producers into one unbuffered channel",
        story="100 goroutines send to one unbuffered channel, main receives. Where a library has no "
        "unbuffered queue, one of a single place stands for it.",
        per="item",
        points=[Point(50_000)],
        quick=[Point(10_000)],
        contenders={
            name: with_args(fn, producers=100, bound=1 if name in ("asyncio", "threading") else 0)
            for name, fn in _STREAMS.items()
        },
    ),
]
