"""Stopping by Ctrl-C, or by another signal, without losing what was learned."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["interrupts_ignored", "graceful_stop"]


@contextmanager
def graceful_stop(*signals: int, said: str | None = None) -> Iterator[threading.Event]:
    """The first Ctrl-C, or one of `signals`, asks to stop after the iteration; the second one interrupts as usual.

    `said` is what the first one answers at once, on standard error.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        if said:
            _say(said)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, *signals)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ctrl-C is not heard, here and in processes begun meanwhile: who leads them tells them to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say(text: str) -> None:
    """Write a line past all buffers: a signal may have come in the middle of a write to them."""
    with suppress(OSError, ValueError, AttributeError):  # a closed stream, or one that is no file
        os.write(sys.stderr.fileno(), f"\n{text}\n".encode())
