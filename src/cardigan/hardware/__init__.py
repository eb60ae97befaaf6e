"""The machine: devices, arithmetic, memory, and the limits of Apple's Metal."""
