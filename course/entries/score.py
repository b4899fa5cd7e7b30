"""Measure a reference entry with the trusted scorer and write its result.json, which the leaderboard shows.

    TINYTORCH_DATA=FOLDER python course/entries/score.py vision [--dataset cifar10] [--split test]

The entry runs as a submission does: in the sandbox, with the package that `tito build` made.
"""

import argparse
import json
from pathlib import Path

from autograder import sandbox
from autograder.files import write_text
from autograder.scoring import rules, scorer, staging
from autograder.scratch import scratch_folder

HERE = Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("track")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    entry = HERE / args.track
    with scratch_folder("measure") as folder:
        submission = staging.course_entry(args.track, folder / args.track)
        dataset = rules.track(args.track).dataset(args.dataset)
        conditions = scorer.Conditions(level=sandbox.choose())
        result = scorer.score(args.track, submission, dataset, args.split, conditions)
    if not result.valid:
        raise SystemExit(f"score.py: the entry is INVALID: {'; '.join(result.reasons)}")
    write_text(entry / "result.json", json.dumps(result.to_dict(), indent=1, sort_keys=True) + "\n")
    metric = rules.track(args.track).metric
    print(f"{entry / 'result.json'}: {metric} {result.metrics[metric]:.4f}, {result.total:.1f} of 90 points")
    for reason in result.reasons:
        print(f"  {reason}")


if __name__ == "__main__":
    main()
