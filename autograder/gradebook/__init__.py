"""From a submission to nbgrader's gradebook: judging, batches, deadlines, the exchange, audits."""
