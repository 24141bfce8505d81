"""The pipeline's steps, one module each: what it reads, what it writes, and nothing about who calls it."""
