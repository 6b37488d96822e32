"""Who may do what: accounts, roles, tokens, and the one function that decides."""
