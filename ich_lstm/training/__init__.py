"""Training: losses, metrics, the LightningModule, and checkpoints."""
