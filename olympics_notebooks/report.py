# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The technical report
#
# > What you built, how you know that it works, and what you would tell the next person who tries.
#
# The tracks measured your models. This report is read by a person, and earns 30 of the 100 points of the course.
# Write about one of your entries or about all of them: four pages of text are enough, and nobody is marked for
# length. `course/rubric.md` is what the marker has in hand; each part below says what it is worth.
#
# Write in the cells below, as you would in a lesson: Markdown, with formulas between dollar signs and pictures
# pasted in or drawn by a code cell of your own between them. Such code cells are for you and the reader's eye; they
# are not run when this notebook is graded, so put every number that matters into the text.
#
# **You need:** at least one track handed in. **Time:** the better part of a day, most of it spent on experiments
# that you should have run anyway.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson report

# %% [markdown]
# ## 1. The question (6 points)
#
# What did you want to reach, and what stood in the way? Say it so that somebody who has solved the nineteen lessons,
# but has not seen your notebook, knows what you did: the model, what is special about it, and why you expected it to
# help. A drawing or a table of the layers says more than a paragraph.

# %% [markdown] nbgrader={"grade_id": "report-question", "grade": true, "solution": true, "points": 6}
# *The question and the method, in your words.*

# %% [markdown]
# ## 2. The experiments (8 points)
#
# A table with a row for each experiment that you learned from: what was changed against which row, what came out, how
# long it ran. Change one thing at a time, or say why you could not. Where a difference is small, say how large it is
# between two runs with different seeds: what is smaller than that is weather.

# %% [markdown] nbgrader={"grade_id": "report-experiments", "grade": true, "solution": true, "points": 8}
# | experiment | changed against | result | seconds |
# |---|---|---|---|
# | | | | |

# %% [markdown]
# ## 3. What it means (8 points)
#
# What did you find out, and which row of your table says so? What explanation fits, and which measurement speaks for
# it rather than for another? Compare with something: the course's entry, a published figure, a simple baseline.

# %% [markdown] nbgrader={"grade_id": "report-findings", "grade": true, "solution": true, "points": 8}
# *The findings, each with the row that shows it.*

# %% [markdown]
# ## 4. Where it ends (4 points)
#
# What failed, and what does your model get wrong? Show a few of its errors and what they have in common. On which data
# or machine would your result not hold?

# %% [markdown] nbgrader={"grade_id": "report-limits", "grade": true, "solution": true, "points": 4}
# *Failures and limits.*

# %% [markdown]
# ## 5. Once more, by somebody else (4 points)
#
# What somebody needs to get your figure again: the command, the seed, the data, the machine and the hours, and the
# hash of the model file (`sha256sum model.safetensors`). Name what you built on: papers, code, people, and what an
# assistant wrote for you.

# %% [markdown] nbgrader={"grade_id": "report-again", "grade": true, "solution": true, "points": 4}
# *The command, the seed, the hash, and the sources.*

# %% [markdown]
# ## Hand in
#
# Save, then submit `report` in the assignment list, or `nbgrader submit report` in a terminal. You may hand in as
# often as you like until it is due; the last one counts.
