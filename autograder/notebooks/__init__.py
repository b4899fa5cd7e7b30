"""A submitted notebook: rebuilt, executed in the sandbox, its graded cells judged outside."""
