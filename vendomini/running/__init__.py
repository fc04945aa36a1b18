"""What carries a plan out: refuse what cannot be done, then write, then play."""
