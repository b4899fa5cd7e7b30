"""A plug-in of pytest: nbval's kernels use sockets, no ports, and are asked to end, as JupyterLab asks.

    pytest -p tests.sockets --nbval source

nbval kills its kernels, and who is killed removes none of the folders that a notebook made for the moment.
"""

from nbval import kernel

from autograder.notebooks.kernels import Manager


class _Asked(Manager):
    def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        super().shutdown_kernel(now=False, restart=restart)


kernel.KernelManager = _Asked
