"""The commands that instructors type."""
