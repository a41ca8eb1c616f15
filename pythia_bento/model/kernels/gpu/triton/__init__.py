"""The CUDA backend, written in Triton. Importing the package needs no GPU; its modules do."""
