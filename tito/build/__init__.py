"""From the lessons that authors write to what users get: notebooks, package, bundle."""
