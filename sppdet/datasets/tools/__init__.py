"""What is done with whole data sets: checking, converting, finding duplicates."""
