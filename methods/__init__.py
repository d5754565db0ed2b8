"""Methods that can be trained, one file or folder each."""
