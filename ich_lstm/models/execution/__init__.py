"""How a network is executed: in chunks with recomputation, compiled, with faster gradients. The results stay the same."""
