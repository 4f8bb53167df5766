"""Idea 4: few-step samplers and the paper's baselines; images of every sampler from the same noise."""
