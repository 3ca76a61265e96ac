"""`python -m xlmrxl_train` is the console command `xlmrxl`."""

import sys

from xlmrxl_train.cli import main

if __name__ == "__main__":
    sys.exit(main())
