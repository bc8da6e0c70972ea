"""The commands, each a few lines over one call.

Exit codes: 0, all was done; 1, some images failed and each is named on stderr, or a data set has errors; 2, the call
itself is wrong, or the machine has not enough memory, disk or open files for it; 130, stopped by Ctrl-C; 143, stopped
by SIGTERM, as batch systems do. What a user can mend is said in one line, without a traceback. Whatever stops a
command, each file that it has written is whole. What computes is imported inside the commands, so that
`attractor --help` is there at once.
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
SCARCE = {  # what a machine may have too little of -> what to do
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
    """The command line as a process of its own; gives the exit code.

    Python's collector would look again and again at the libraries while they are loaded, and once more at the end:
    nearly half the time of a short call.
    """
    gc.set_threshold(100_000)
    signal.signal(signal.SIGTERM, _terminate)
    code = main()
    gc.freeze()
    return code


def _terminate(number: int, _: FrameType | None) -> None:
    """End as by an exception, so that unfinished files are removed."""
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process; gives the exit code."""
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
    """What to do where the machine has too little of something; None where that is not the trouble."""
    if isinstance(error, OSError):
        return SCARCE.get(error.errno or 0)
    from attractor.prediction.memory import is_for_memory

    return SCARCE[errno.ENOMEM] if is_for_memory(error) else None


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C stands behind it: Typer and Lightning end the process then, each by a code of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
