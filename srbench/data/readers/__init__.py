"""Datasets that are read from files or a hub, one module a layout; a new module is found by itself."""
