"""`python -m xlmrxl_train` is the console command `xlmrxl`."""

import os
import sys

from xlmrxl_train.cli import main


def start() -> None:
    """Run the command line and end the process.

    A rank of several leaves Python without its farewell, in which gloo's threads now and then abort a process that has
    done all its work; a launcher would take that for a crash and start the job again.
    """
    code = main()
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    start()
