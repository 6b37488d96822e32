"""Folders on volumes: files below a descriptor, uploads that resume, trash and clones."""
