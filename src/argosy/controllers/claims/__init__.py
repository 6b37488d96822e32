"""What we do about claims: order, hold, heal, rest, release; and about what providers list."""
