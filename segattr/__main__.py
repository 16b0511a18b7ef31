"""``python -m segattr``: the command."""

import sys

from segattr.cli.main import main

sys.exit(main())
