"""What the course asks of a machine, and what `tito doctor` says of it."""
