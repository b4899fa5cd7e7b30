"""A Dask cluster on Slurm for `tito grade`: one job a worker, all in the same shared folder.

    pip install dask-jobqueue
    python course/clusters/slurm.py --jobs 20 --queue teaching &
    tito grade --all --scheduler tcp://$(hostname):8786

The course and this checkout must lie on a file system that all nodes see under the same name, and bubblewrap
must be installed on the nodes. `--timed` starts workers for the tracks instead: each has a node to itself,
and the resource `timed`, so that nothing runs beside what is measured. `--show` prints the job script.
"""

import argparse
import time

from autograder.errors import Missing
from autograder.needs import need


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10, help="workers, each a Slurm job")
    parser.add_argument("--queue", default=None, help="Slurm partition")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--timed", action="store_true", help="a whole node for each worker, for tracks")
    parser.add_argument("--show", action="store_true", help="print the job script and end")
    options = parser.parse_args()
    try:
        need("dask_jobqueue")
    except Missing as error:
        parser.exit(error.exit_code, f"slurm.py: {error}\n")
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(
        queue=options.queue,
        cores=1,  # a worker judges one submission at a time, in two processes that take turns
        processes=1,
        memory="6GB",  # the limits of one submission and its judge together
        walltime=options.walltime,
        job_extra_directives=["--exclusive"] if options.timed else [],
        worker_extra_args=["--resources", "timed=1"] if options.timed else [],
        scheduler_options={"port": 8786},
    )
    if options.show:
        print(cluster.job_script())
        return
    cluster.scale(jobs=options.jobs)
    print(f"tito grade --all --scheduler {cluster.scheduler_address}", flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
