"""Run a program nobody trusts: fenced off, watched, and killed with everything it started.

Levels, strongest first. The level a program ran under is on every result, and a level that is not to be had
is refused, never replaced by a weaker one behind the caller's back.

bubblewrap  own file tree (system read-only, private /tmp, no home, only the named folders), own process
            space, no network but a loopback of its own, no rights, no further namespaces
landlock    the kernel lets it open only the system's and the named files, and change mode, owner and date of
            none (such calls do nothing); names and sizes of others can be asked for; sockets only within the
            machine (Unix ones), or all of them where the caller asks for loopback, as a kernel must
rlimits     memory, processes, time and file size are limited; files of the same user stay readable

At the last two no signal reaches the account's other processes from Linux 6.12 on; on an older kernel only
the one to all of them (`kill -1`) is refused. Started by root, a program is root to them.

At every level a supervisor of ours watches the whole tree: wall clock, CPU time, memory, processes, threads,
bytes written to disk. Where the machine lets us make a cgroup, the kernel holds memory and tasks as well.
`autograder.sandbox.selftest` tries each of these claims on the machine at hand.
"""

from autograder.sandbox.capture import Completed as Completed
from autograder.sandbox.capture import run as run
from autograder.sandbox.levels import HELP as HELP
from autograder.sandbox.levels import LEVELS as LEVELS
from autograder.sandbox.levels import SETTING as SETTING
from autograder.sandbox.levels import SandboxUnavailable as SandboxUnavailable
from autograder.sandbox.levels import UnknownLevel as UnknownLevel
from autograder.sandbox.levels import available as available
from autograder.sandbox.levels import best_level as best_level
from autograder.sandbox.levels import choose as choose
from autograder.sandbox.levels import require as require
from autograder.sandbox.levels import why_not as why_not
from autograder.sandbox.process import SUPERVISOR_KILLED as SUPERVISOR_KILLED
from autograder.sandbox.process import Process as Process
from autograder.sandbox.process import Report as Report
from autograder.sandbox.process import start as start
from autograder.sandbox.program import Limits as Limits
from autograder.sandbox.program import Program as Program
