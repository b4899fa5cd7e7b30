"""What `%load_ext tito` does in a notebook: the workspace, checkpoints, results in boxes."""
