"""The commands that students type, and their workspace."""
