"""What we do about jobs."""
