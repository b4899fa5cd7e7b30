"""A plug-in of pytest: nbval's kernels use sockets, no ports: `pytest -p tests.sockets --nbval source`."""

from nbval import kernel

from autograder.kernels import Manager

kernel.KernelManager = Manager
