"""Showing the transcript: following the file, rendering turns as HTML, the two views and the search."""
