"""Signals that ask a command to stop: it ends by an exception, so that unfinished files are removed."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.01  # seconds until a signal is sent once more, if the code that it met let no exception through


class Stopping:
    """From `begin` to `end`, Ctrl-C and SIGTERM raise an exception, wherever the program is."""

    def __init__(self) -> None:
        self.asked: list[int] = []  # numbers of the signals that have come

    def begin(self) -> None:
        """Let signals stop the program, from now on."""
        for number in SIGNALS:
            signal.signal(number, self._stop)
        sys.unraisablehook = self._unraisable

    def end(self) -> None:
        """Ignore signals: nothing is left to stop."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.asked.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Compiled code that cannot raise drops the exception, and would let the command go on as if none had come."""
        if self.asked and issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
            threading.Timer(AGAIN, signal.raise_signal, self.asked[:1]).start()
        else:
            sys.__unraisablehook__(unraisable)
