"""Other ways to look at an image than as a whole: in tiles, or as R-CNN does, region by region."""
