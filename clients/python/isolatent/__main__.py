"""`python -m isolatent`: the same as the `isolatent` command."""

import sys

from isolatent.cli import main

if __name__ == "__main__":
    sys.exit(main())
