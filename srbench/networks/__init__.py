"""The networks behind SR: classifiers and quality networks, by name or by card."""
