"""What fine-tuning has reached on its way: AP on images that are not trained on, and losses."""
