"""`python -m tests.mutants 05_autograd [mutant ...]`: points and lost points a wrong solution gets."""

import sys
import time

from tests.mutants import Mutant, grade, mutants

lesson, wanted = sys.argv[1], sys.argv[2:]
known: list[Mutant | str] = ["reference", "release", *mutants(lesson)]
survivors = 0
for what in known:
    name = what if isinstance(what, str) else what.name
    if wanted and name not in wanted:
        continue
    start = time.perf_counter()
    results = [r for r in grade(lesson, what, quick=isinstance(what, Mutant)) if r.points is not None]
    points, most = sum(r.points for r in results if r.points is not None), sum(r.max_points for r in results)
    right = points == most if name == "reference" else points == 0 if name == "release" else points < most
    survivors += not right
    seconds = time.perf_counter() - start
    print(f"{'ok ' if right else 'BAD'} {name}: {points:g} of {most:g} points, {seconds:.1f} s")
    if name != "release":
        for result in results:
            if result.points != result.max_points:
                lost = f"{result.points:g} of {result.max_points:g}"
                print(f"      {result.grade_id}: {lost}  {result.reason[:150]}")
sys.exit(1 if survivors else 0)
