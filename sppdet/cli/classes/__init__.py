"""Commands that change which classes a trained model has."""
