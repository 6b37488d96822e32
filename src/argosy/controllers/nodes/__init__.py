"""What we do about claims and their nodes."""
