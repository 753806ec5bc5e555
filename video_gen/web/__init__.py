"""The server of `video-gen play`: thin, with nothing that the command line cannot do."""
