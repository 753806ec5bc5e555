"""Video Gen beside its peers, in one process: see README.md of this folder, and `video-gen bench --help`."""
