"""The trusted side of Torch Olympics: rules, sandbox, measurement, scores and grading.

Nothing here imports student code, `tinytorch` or `tito`.
"""
