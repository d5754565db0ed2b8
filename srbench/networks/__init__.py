"""The networks behind SR, by name or by card: classifiers, quality networks, segmentation networks, detectors."""
