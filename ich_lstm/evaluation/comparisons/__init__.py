"""Models, readers and strata side by side."""
