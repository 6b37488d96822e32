"""What we do about clusters."""
