"""The commands, for `python -m attractor`."""

import sys

from attractor.cli import main

sys.exit(main())
