"""Image classification with the paper's networks (He et al. 2014, sec. 2 and 3)."""
