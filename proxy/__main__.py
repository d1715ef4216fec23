"""`python -m proxy` is the command `llmproxy`."""

import sys

from proxy.cli import main

sys.exit(main())
