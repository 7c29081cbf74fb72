"""What is learned from behaviour: models, neighbours, popularity, drift, and the blend of their scores."""
