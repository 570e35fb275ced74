"""Whether two models, or two readers, differ."""
