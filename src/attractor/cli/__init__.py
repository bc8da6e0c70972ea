"""The commands, each a few lines over one call.

Exit codes: 0, everything was done; 1, some images failed (each is named on stderr), or a data set has errors; 2, the
call itself is wrong, or the machine lacks the memory, disk space or open files for it; 130, stopped by Ctrl-C; 143,
stopped by SIGTERM, which batch systems send. Errors that a user can mend take one line, without a traceback. Whatever
stops a command, every file it has written is whole. Code that computes is imported inside the commands, so that
`attractor --help` appears at once.
"""

from __future__ import annotations

import errno
import gc
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from attractor.cli import compare, data, evaluate, export, models, segment, train
from attractor.cli.app import Command, app
from attractor.cli.printing import complain
from attractor.errors import InputError

COMMANDS = (  # in the order of `attractor --help`
    segment.segment,
    train.train,
    evaluate.evaluate,
    compare.compare,
    export.export,
    data.check,
    data.convert,
    models.models,
    models.demo,
)
SCARCE = {  # what a machine may run out of -> what to do
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "close other programs, or give smaller images",
}

for command in COMMANDS:
    app.command(cls=Command)(command)


def run() -> int:
    """Run the command line as the whole process; gives the exit code.

    Python's garbage collector would go through the libraries again and again while they are loaded, and once more at
    the end: nearly half the time of a short call.
    """
    gc.set_threshold(100_000)
    signal.signal(signal.SIGTERM, _terminate)
    code = main()
    gc.freeze()
    return code


def _terminate(number: int, _: FrameType | None) -> None:
    """End by an exception, so that unfinished files are removed."""
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the one this process was given; gives the exit code."""
    try:
        app(arguments, prog_name="attractor")
    except InputError as error:
        complain(str(error))
        return 2
    except (MemoryError, RuntimeError, OSError) as error:
        if (cure := _cure(error)) is None:
            raise
        complain(f"The machine cannot do this ({type(error).__name__}: {error}); {cure}.")
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return 130 if _is_interrupt(end) else int(end.code or 0)
    return 0


def _cure(error: MemoryError | RuntimeError | OSError) -> str | None:
    """What to do if the machine has run out of something; None if the error is of another kind."""
    if isinstance(error, OSError):
        return SCARCE.get(error.errno or 0)
    from attractor.prediction.memory import is_for_memory

    return SCARCE[errno.ENOMEM] if is_for_memory(error) else None


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused it: Typer and Lightning then end the process, each with its own code."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
