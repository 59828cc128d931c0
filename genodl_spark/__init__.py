"""genodl-spark: a lake of genomes, and models trained on it and run back over it."""
