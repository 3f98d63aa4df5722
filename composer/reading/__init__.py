"""The transcript as it is shown: the file followed, turns as HTML, the views and the search."""
