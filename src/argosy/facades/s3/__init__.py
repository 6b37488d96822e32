"""Amazon's S3 over HTTP, for the buckets of this server."""
