"""What arrays are: devices, memory, threads, kernels, and what one backend has that others have not."""
