"""Replies of the API as pages and pictures: HTML and SVG that need nothing from elsewhere."""
