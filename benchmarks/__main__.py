"""`python -m benchmarks`: see cli.py. This file alone must be readable to an interpreter that is too old."""

import os
import platform
import signal
import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):
        sys.stderr.write("The benchmarks need Python 3.11 or newer; this is %s.\n" % platform.python_version())
        sys.exit(2)
    if not __package__:  # `python benchmarks`, which puts this folder on the path instead of the one it is in
        sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from benchmarks.cli import main

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was measured until then is saved, as at Ctrl-C
    sys.exit(main())
