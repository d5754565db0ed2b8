"""Datasets that are made here, one module each, found by itself; nothing is downloaded."""
