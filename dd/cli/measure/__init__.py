"""Commands that measure samples and compare students."""
