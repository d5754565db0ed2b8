"""Datasets that are read from files or a hub, one module a layout."""
