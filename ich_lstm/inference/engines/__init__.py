"""Ways to run a model's encoder: torch in float32 or bfloat16, and OpenVINO; the fastest that agrees with float32 is chosen."""
