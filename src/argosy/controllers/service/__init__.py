"""Services: replicas behind one endpoint, their revisions, and how many there should be."""
