"""The labelled scans of a site, their stored features, and predictions for them."""
