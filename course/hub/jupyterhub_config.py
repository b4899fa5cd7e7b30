"""JupyterHub for one course: everybody works in an account of their own, all share nbgrader's exchange.

Started as root, with the Python that has torch-olympics[instructor] and jupyterhub:
`python -m jupyterhub -f jupyterhub_config.py`.
"""

import json
import os
import pwd
import sys
from pathlib import Path

from autograder.gradebook import levels
from tito.student import lab

COURSE = "olympics"  # the name given to `tito course init`
INSTRUCTORS = {"teacher": "~teacher/olympics"}  # account: the course's folder
GROUP = "olympics"  # accounts in this group of the machine may log in
EXCHANGE = Path("/srv/nbgrader/exchange")
SETTINGS = Path("/srv/nbgrader/settings")  # written below, read by everybody's JupyterLab
STATE = Path("/srv/nbgrader/hub")  # what the hub remembers: root's alone

EXCHANGE.mkdir(parents=True, exist_ok=True)
EXCHANGE.chmod(levels.ROOT)  # all may put something there, and nobody renames what is another's
# The course's folders are the teacher's from the start, so that nobody else makes them first.
TEACHER = next(iter(INSTRUCTORS))
levels.make(levels.Exchange(EXCHANGE, COURSE, [pwd.getpwnam(TEACHER).pw_uid]), TEACHER)
STATE.mkdir(exist_ok=True)
STATE.chmod(0o700)
# JupyterHub lets no page be framed, and formgrader's menu entry would show one: it is opened by its address.
NOT_SHOWN = {"@jupyter/nbgrader:formgrader": True, "@jupyter/nbgrader:course-list": True}
NOT_SERVED = {"nbgrader.server_extensions.formgrader": False, "nbgrader.server_extensions.course_list": False}
FILES = {
    "all/nbgrader_config.py": (
        "c = get_config()\n"
        f"c.CourseDirectory.course_id = {COURSE!r}\n"
        f"c.Exchange.root = {str(EXCHANGE)!r}\n"
        "c.ExchangeFetchAssignment.replace_missing_files = True  # what was typed stays\n"
    ),
    "all/labconfig/default_setting_overrides.json": json.dumps(lab.DEFAULTS),
    "all/labconfig/page_config.json": json.dumps({"disabledExtensions": NOT_SHOWN}),
    "students/labconfig/page_config.json": json.dumps({"disabledExtensions": lab.INSTRUCTORS}),
    "students/jupyter_server_config.json": json.dumps({"ServerApp": {"jpserver_extensions": NOT_SERVED}}),
}
for name, text in FILES.items():
    (SETTINGS / name).parent.mkdir(parents=True, exist_ok=True)
    (SETTINGS / name).write_text(text, encoding="utf-8")


def choose(spawner):
    """Instructors work in the course's folder, with its settings; students in their homes."""
    name = spawner.user.name
    home, course = Path(f"~{name}").expanduser(), Path(INSTRUCTORS.get(name, "")).expanduser()
    home.chmod(0o700)  # Debian's useradd lets all others read it
    spawner.notebook_dir = str(course if name in INSTRUCTORS and course.is_dir() else home)
    folders = [course if name in INSTRUCTORS else SETTINGS / "students", SETTINGS / "all"]
    spawner.environment = {
        **spawner.environment,
        **({"TITO_SANDBOX": os.environ["TITO_SANDBOX"]} if "TITO_SANDBOX" in os.environ else {}),
        "JUPYTER_CONFIG_PATH": os.pathsep.join(map(str, folders)),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


c = get_config()  # noqa: F821, given by traitlets
c.JupyterHub.bind_url = "http://127.0.0.1:8000"  # behind a web server that speaks https
c.JupyterHub.db_url = f"sqlite:///{STATE}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = f"{STATE}/cookie_secret"
c.ConfigurableHTTPProxy.pid_file = f"{STATE}/proxy.pid"
c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.allowed_groups = {GROUP}
c.JupyterHub.spawner_class = "localprocess"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]  # JupyterLab of this environment
c.Spawner.args = list(lab.OFFLINE)
c.Spawner.default_url = "/lab"
c.Spawner.pre_spawn_hook = choose

# Debian's proxy looks for Debian's modules, which a node from elsewhere does not find by itself.
if Path("/usr/share/nodejs").is_dir():
    os.environ.setdefault("NODE_PATH", "/usr/share/nodejs")
