"""Fine-tuning: the warm-up of a classifier, low-rank adapters, the loop, what it leaves."""
