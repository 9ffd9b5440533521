"""The control tool: parses, asks, calls the kernel in `addon`, prints."""
