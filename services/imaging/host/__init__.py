"""The model host: packages on disk, checked and loaded, run behind one contract (`contract.Analysis`)."""
