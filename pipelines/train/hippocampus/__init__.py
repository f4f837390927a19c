"""Training of the hippocampus segmentation model: `python -m pipelines.train.hippocampus --help`."""
