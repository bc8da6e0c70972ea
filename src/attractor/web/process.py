"""A process of `attractor.web.worker` that stays, and does one thing after another for whoever asks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

ENDED = "The process that worked on it ended; perhaps there was too little memory."


class Worker:
    """The process; one thread at a time asks it, any may end it."""

    def __init__(self) -> None:
        """Start it."""
        self._was_late = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "attractor.web.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @property
    def is_well(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """What it answers, with "error" if it refuses, ends, or takes longer and is ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(seconds, self._stop_late)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):  # it has ended, or was ended by another thread
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            return dict(json.loads(line))
        self._process.kill()
        self._process.wait()
        return {"error": f"It took longer than {seconds:.0f} seconds." if self._was_late else ENDED}

    def _stop_late(self) -> None:
        self._was_late = True
        self._process.kill()

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        with suppress(OSError), self._process:  # what was not yet written to it
            pass
