"""Datasets that are made here, one module each; nothing is downloaded."""
