"""The commands, for `python -m attractor`."""

import sys

from attractor.cli import run

sys.exit(run())
