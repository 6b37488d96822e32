"""Buckets of three clouds in one task."""

import argosy as sky

task = sky.Task(run="ls /data")
storage_mounts = {
    "/data/first": "s3://example-first",
    "/data/second": "gs://example-second",
    "/data/third": "azblob://example-third",
}
task.set_storage_mounts(storage_mounts)
