"""The commands, each a few lines over one call.

Exit codes: 0, everything was done; 1, some images failed (each is named on stderr), or a data set has errors; 2, the
call itself is wrong, or the machine lacks the memory, disk space or open files for it; 130, stopped by Ctrl-C; 143,
stopped by SIGTERM, which batch systems send. Errors that a user can mend take one line, without a traceback. Whatever
stops a command, every file it has written is whole. Code that computes is imported inside the commands, so that
`attractor --help` appears at once.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

from attractor.cli import calibrate, compare, data, evaluate, export, models, segment, serve, track, train
from attractor.cli.app import Command, app
from attractor.cli.printing import complain
from attractor.cli.stopping import Stopping
from attractor.errors import InputError
from attractor.freed_memory import keep_freed_memory
from attractor.shortage import cure, shortage_behind

COMMANDS = (  # in the order of `attractor --help`
    segment.segment,
    track.track,
    train.train,
    serve.correct,
    evaluate.evaluate,
    compare.compare,
    calibrate.calibrate,
    export.export,
    serve.serve,
    data.check,
    data.convert,
    models.models,
    models.demo,
)

for command in COMMANDS:
    app.command(cls=Command)(command)


def run() -> int:
    """Run the command line as the whole process, and return the exit code.

    Python's garbage collector would go through the libraries again and again while they are loaded, and once more at
    the end: nearly half the time of a short call.
    """
    gc.set_threshold(100_000)
    keep_freed_memory()
    stopping = Stopping()
    stopping.begin()
    code = _code_of(stopping)
    if stopping.asked:
        from attractor.images.unfinished import remove_own

        remove_own()
    gc.freeze()
    return code


def _code_of(stopping: Stopping) -> int:
    """The exit code; the first signal's, if a command was asked to stop and had not done everything.

    The exception that a signal raises may come while a library runs, which then turns it into one of its own, or when
    the command has just ended.
    """
    try:
        code = main()
        stopping.end()
    except BaseException:  # the signal's own, or whatever a library made of it
        if not stopping.asked:
            raise
        code = 1
    return 128 + stopping.asked[0] if code and stopping.asked else code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the one this process was given, and return the exit code."""
    try:
        app(arguments, prog_name="attractor")
    except InputError as error:
        complain(str(error))
        return 2
    except Exception as error:  # a shortage can show as any error, such as an ImportError; all else is raised again
        if (shortage := shortage_behind(error)) is None:
            raise
        reason = f"{type(shortage).__name__}: {shortage}".removesuffix(": ")
        complain(f"The machine cannot do this ({reason}); {cure(shortage)}.")
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return 130 if _is_interrupt(end) else int(end.code or 0)
    return 0


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused it: Typer and Lightning then end the process, each with its own code."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
