"""How a network is executed: in chunks with recomputation, compiled, with faster gradients.

Outputs stay the same, and gradients up to rounding.
"""
