"""A package made of a lesson's exported cells: the exporter, and the names that the course's package has."""
