"""`python3 -m tito.doctor`: the short form, before any package is installed."""

import sys

from tito.doctor.machine import main

sys.exit(main())
