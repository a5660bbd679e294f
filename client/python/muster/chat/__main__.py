"""Runs the chat; an interrupt while Python still loads leaves no traceback."""

import os
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    # What goes wrong is said by the program, once; gRPC's own lines are for those who ask for them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from muster.chat.run import main
    sys.exit(main(sys.argv[1:]))
