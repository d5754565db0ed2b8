"""Data: what a split is, how it is opened, decoded, cropped to HR and kept in the cache."""
