"""Select: main waits on k unbuffered channels at once, and a goroutine sends to them in turn.

The sender waits for an answer before it sends the next, so every select finds nothing ready and must
enter and leave k wait queues: the slow path, which is the one that grows with k. Without the answer
a library that lets the sender run ahead would find many channels ready at once and be measured
doing other work. The answer's own cost is in the time, for all alike.

Go's select is rare elsewhere. asyncio and gevent can wait for the first of many tasks, each of them
a pending `get`; only the one that finished is made anew, which is how their users write it. Trio and
threads have nothing of the kind (their users merge everything into one queue, which is another
program), so they are not here.

The limit is a bare greenlet that hands over the channel's number and the value in one switch, and is
answered by the switch back: what would be left of a select that cost nothing.
"""

from benchmarks.workload import Point, Workload


def in_gort(meter, n, size):
    from gort import Chan, go, recv, select

    channels, answer = [Chan() for _ in range(size)], Chan()

    def send():
        for i in range(n):
            channels[i % size].send(i)
            answer.recv()

    go(send)
    # The cases are made once: they do not change, and may be used again.
    cases = [recv(channel) for channel in channels]
    with meter:
        for _ in range(n):
            select(*cases)
            answer.send(None)


def in_bare(meter, n, size):
    from greenlet import getcurrent, greenlet

    main = getcurrent()

    def send():
        for i in range(n):
            main.switch((i % size, i))

    switch = greenlet(send).switch
    with meter:
        for _ in range(n):
            switch()


async def in_asyncio(meter, n, size):
    from asyncio import FIRST_COMPLETED, Queue, create_task, wait

    queues, answer = [Queue() for _ in range(size)], Queue()

    async def send():
        for i in range(n):
            queues[i % size].put_nowait(i)
            await answer.get()

    sender = create_task(send())
    received = 0
    with meter:
        waiting = {create_task(queue.get()): queue for queue in queues}
        while received < n:
            done, _ = await wait(waiting, return_when=FIRST_COMPLETED)
            for task in done:
                received += 1
                queue = waiting.pop(task)
                waiting[create_task(queue.get())] = queue
                answer.put_nowait(None)
    await sender
    for task in waiting:
        task.cancel()


def in_gevent(meter, n, size):
    import gevent
    from gevent.queue import Channel

    channels, answer = [Channel() for _ in range(size)], Channel()

    def send():
        for i in range(n):
            channels[i % size].put(i)
            answer.get()

    sender = gevent.spawn(send)
    received = 0
    with meter:
        waiting = {gevent.spawn(channel.get): channel for channel in channels}
        while received < n:
            for done in gevent.wait(list(waiting), count=1):
                received += 1
                channel = waiting.pop(done)
                waiting[gevent.spawn(channel.get)] = channel
                answer.put(None)
    sender.join()
    gevent.killall(list(waiting))


WORKLOADS = [
    Workload(
        name="select",
        title="select over k channels",
        story="Main selects over k unbuffered channels; another goroutine sends to them in turn "
        "and waits for an answer each time. Trio and threads are not here, for they have no select: their users merge "
        "everything into one queue, which is another program.",
        per="select",
        axis="channels",
        reason="A select enters and leaves the queue of each of its k channels, as Go's does, so it costs k times "
        "what one costs. The other libraries keep k tasks waiting and renew only the one that was served. In a profile "
        "a third is the k channels' locks, taken and given back three times, the rest their queues.",
        points=[Point(20_000, 2), Point(10_000, 8), Point(4_000, 64)],
        quick=[Point(4_000, 2), Point(2_000, 8), Point(500, 64)],
        contenders={"gort": in_gort, "bare": in_bare, "asyncio": in_asyncio, "gevent": in_gevent},
    )
]
