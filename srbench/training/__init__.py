"""Training on Lightning Fabric: recipes, losses, networks, and the one loop that all methods and classifiers share."""
