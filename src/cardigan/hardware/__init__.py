"""What the machine has: devices, the arithmetic they compute in, their memory, and what Apple's Metal lacks."""
