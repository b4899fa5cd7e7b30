"""A verdict from outside: the graded cells of a notebook run apart from the student's code.

student.py   runs in one sandbox: the student's cells, and a server of what they define
judge.py     runs in another: the graded cells, ours, on proxies of the student's names
proxies.py   what a graded cell holds in place of a student's object
wire.py      the values between the two: JSON and raw arrays

No hidden test, expected value or score is ever in the student's process, and nothing that its code patches
(NumPy, a display hook, __eq__) reaches the comparison.
"""
