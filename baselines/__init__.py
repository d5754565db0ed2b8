"""Methods with nothing to train, one file each."""
