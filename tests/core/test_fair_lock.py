"""Waiters are served in the order they came."""

import threading

from specdec_core.fair_lock import FairLock


def test_waiters_take_turns_in_order():
    queued = threading.Semaphore(0)

    class Queued(threading.Event):
        def wait(self, timeout=None):
            queued.release()
            return super().wait(timeout)

    lock, order, threads = FairLock(Queued), [], []

    def wait(name: int) -> None:
        with lock:
            order.append(name)

    with lock:
        for name in range(5):
            threads.append(threading.Thread(target=wait, args=(name,)))
            threads[-1].start()
            assert queued.acquire(timeout=10)
    for thread in threads:
        thread.join(timeout=10)
    assert order == list(range(5))


def test_it_is_free_again_after_an_error():
    lock = FairLock()
    try:
        with lock:
            raise KeyError
    except KeyError:
        pass
    with lock:
        pass


def test_a_waiter_that_is_interrupted_passes_its_turn_on():
    ended = []

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            raise KeyboardInterrupt

    lock = FairLock(Interrupted)
    with lock:
        try:
            with lock:
                pass
        except KeyboardInterrupt:
            ended.append(True)
    with lock:
        ended.append(True)
    assert ended == [True, True]
