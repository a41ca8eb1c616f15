"""What Triton cannot express, in CUDA C++ compiled at run time. Importing it needs no GPU."""
