"""Checkpoints read as files: statistics, spectra and clusters of weights, without building the model."""
