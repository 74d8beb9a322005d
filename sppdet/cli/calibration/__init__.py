"""`sppdet calibrate`, and the held-out images that a training calibrates on."""
