"""The proxy of apps: host names of their own, one-time codes, cookies, and what an app may see of a
request."""
