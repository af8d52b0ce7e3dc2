"""What is measured about a detector: its priors, their matches, its size and cost."""
