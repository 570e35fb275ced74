"""What a fit does when numbers stop being finite, and when memory runs out."""
