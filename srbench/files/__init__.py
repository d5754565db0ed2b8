"""Files: written whole, read strictly."""
