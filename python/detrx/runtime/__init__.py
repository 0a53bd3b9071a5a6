"""What runs a model: one file a library, one face for all."""
