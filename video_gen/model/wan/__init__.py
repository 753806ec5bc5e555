"""The public Wan family in this project's contracts, under the original release's names of modules and parameters."""
