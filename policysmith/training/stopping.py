"""Stopping by Ctrl-C, or by another signal, without losing what was learned."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["graceful_stop"]


@contextmanager
def graceful_stop(*signals: int) -> Iterator[threading.Event]:
    """The first Ctrl-C, or one of `signals`, asks to stop after the iteration; the second one interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, *signals)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
