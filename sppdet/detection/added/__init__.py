"""Classes that are added to a trained model: from a few images, in seconds."""
