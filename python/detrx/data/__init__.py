"""Data sets: strict readers, checks, training batches, and generated scenes."""
