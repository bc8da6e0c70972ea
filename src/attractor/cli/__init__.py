"""The commands, each a few lines over one call.

Exit codes: 0, all was done; 1, some images failed and each is named on stderr, or a data set has errors; 2, the call
itself is wrong; 130, stopped by Ctrl-C. What a user can mend is said in one line, without a traceback. What computes is
imported inside the commands, so that `attractor --help` is there at once.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

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
for command in COMMANDS:
    app.command(cls=Command)(command)


def run() -> int:
    """The command line as a process of its own; gives the exit code.

    Python's collector would look again and again at the libraries while they are loaded, and once more at the end:
    nearly half the time of a short call.
    """
    gc.set_threshold(100_000)
    code = main()
    gc.freeze()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process; gives the exit code."""
    try:
        app(arguments, prog_name="attractor")
    except InputError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return 130 if _is_interrupt(end) else int(end.code or 0)
    return 0


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C stands behind it: Typer and Lightning end the process then, each by a code of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
