"""The apps that sessions can run: one declarative file each, shipped here or added by users."""
