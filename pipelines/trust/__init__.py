"""What known inputs look like to a model, fitted and measured: `python -m pipelines.trust`."""
