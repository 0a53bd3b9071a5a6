"""Networks: each is a plain call that takes one frozen configuration."""
