"""Loading of trained models, and prediction and explanation of scans."""
