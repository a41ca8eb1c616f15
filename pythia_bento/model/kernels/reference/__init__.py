"""Plain torch on any device: slow, short, and what the other backends are compared with."""
