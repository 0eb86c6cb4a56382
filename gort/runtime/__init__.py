"""The scheduler: Go's G, M and P in plain Python.

Read the files in this order; each opens with its own essay and imports only from those above it::

    overdue     the one flag that every runtime call reads: "a slice is over somewhere, look"
    latch       the short lock of the hot paths
    wait        tickets, park and ready: how a goroutine waits and is woken, the surface for everything above
    timers      a heap of deadlines, one for each P
    limits      how many Ps and threads there may be
    chance      random choices, and how GORT_SEED replays them
    report      exceptions that nobody asked for
    goroutine   G: the handle that `go` returns
    gilshare    with a GIL: a shorter turn at it while somebody computes
    handoff     what happens to a P when a call blocks or occupies its machine; functions that block
    ages        for how long a goroutine has waited
    carrier     the greenlet that runs goroutines one after another, and the turn of the local run queue
    poller      epoll and kqueue, in which a machine sleeps
    direction   who waits to read from a descriptor, or to write, and how long they may
    bell        by which a plain thread that waits for I/O is woken
    netpoll     descriptors: a goroutine that waits for I/O holds no thread
    surplus     machines too many, and when they end
    blocking    a call that may block runs on a spare thread, and its goroutine parks
    processor   P: the right to run goroutines, its local run queue and timers
    ending      how long the end of a program waits for goroutines that do not end
    closing     the end of a runtime: everybody is cancelled, in waves
    delivery    how a cancellation reaches a goroutine
    stealing    fresh goroutines that wait too long move to a P that has nothing to do
    machine     M: an operating system thread, its hub and how it sleeps
    stacks      what every goroutine is doing, as text
    deadlock    the proof that nothing can ever run again
    sysmon      the thread that watches the Ms
    scheduler   what the Ms share: Ps, idle lists, the global run queue
    plain       a plain thread in a block that can be cancelled
    scope       blocks that can be cancelled, and blocks that cannot
    quit        SIGQUIT prints them
    instance    Runtime, run, go: where all of it is put together
    fork        how the child of a fork forgets all of it

Nothing here knows channels, select or anything else above it.
"""
