"""Studies of registration on real images with known displacements: figures and thresholds come from here."""
