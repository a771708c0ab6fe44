"""`python -m tiltbench.cli`."""

import sys

from tiltbench.cli.main import main

sys.exit(main())
