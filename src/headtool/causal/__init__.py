"""The causal language model: a latent individual abducted from the features, and a linear action on it, in closed form."""
