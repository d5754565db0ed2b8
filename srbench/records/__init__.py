"""What an evaluation leaves on disk: one record a cell, its samples, and what made it."""
