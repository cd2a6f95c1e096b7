"""A stand-in for Hugging Face's `spaces` on a machine without ZeroGPU: the interface that its page documents.

As there, every call of a decorated function is made by a process that is forked for it; arguments and results
are pickled on their way, and an error other than gr.Error comes out as its class's name alone.
"""

import multiprocessing
import os
import threading
from functools import wraps

import gradio as gr

_FORK = multiprocessing.get_context("fork")
REFUSED_FROM_S = float(os.environ.get("STANDIN_REFUSED_FROM_S", "inf"))
"""Calls that ask for so many seconds get no GPU."""


def GPU(task=None, *, duration=None, size=None):
    if task is None:
        return lambda given: GPU(given, duration=duration, size=size)

    @wraps(task)
    def lent(*args, **kwargs):
        asked_s = duration(*args, **kwargs) if callable(duration) else duration
        print(f"spaces stand-in: {asked_s} s", flush=True)
        if asked_s >= REFUSED_FROM_S:
            raise gr.Error(f"{asked_s}s requested vs. 0s left", title="ZeroGPU quota exceeded")
        questions, questions_in = _FORK.Pipe(duplex=False)
        results, results_in = _FORK.Pipe(duplex=False)
        stop = _FORK.Event()
        worker = _FORK.Process(target=_work, args=(task, questions, results_in, stop), daemon=True)
        worker.start()
        results_in.close()
        questions_in.send((args, kwargs))
        try:
            while True:
                try:
                    kind, value = results.recv()
                except EOFError:
                    raise gr.Error("GPU task aborted", title="ZeroGPU worker error") from None
                if kind == "end":
                    return
                if kind == "error":
                    raise gr.Error(value, title="ZeroGPU worker error")
                yield value
        finally:
            stop.set()
            results.close()
            worker.join(20)

    return lent


def _work(task, questions, results, stop):
    args, kwargs = questions.recv()

    def iterate():
        steps = task(*args, **kwargs)
        try:
            for step in steps:
                if stop.is_set():
                    break
                results.send(("step", step))
            results.send(("end", None))
        except BrokenPipeError:
            pass
        except Exception as error:
            results.send(("error", type(error).__name__))

    thread = threading.Thread(target=iterate)  # there too not the main one
    thread.start()
    thread.join()
