"""What is measured and what it is worth: rules, the worker in its sandbox, the scorer, the ledger."""
