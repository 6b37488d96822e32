"""SCIM 2.0: an identity provider makes, changes and ends accounts and groups."""
