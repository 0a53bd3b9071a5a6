"""What a training step minimises: class, box and distribution losses, and the denoising queries."""
