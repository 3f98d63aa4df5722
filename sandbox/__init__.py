"""Running a piece of code where it can do no harm: bubblewrap where it works, Landlock elsewhere."""
