"""What a training will take, told before it runs: time, memory, disk; steps that fit a time."""
