"""Runs the benchmark; an interrupt while Python still loads leaves no traceback."""

import os
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from muster.bench.run import main
    sys.exit(main(sys.argv[1:]))
