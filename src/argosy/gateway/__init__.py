"""The data plane: a process of its own that takes requests for services and passes them to their replicas."""
