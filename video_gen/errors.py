"""The errors a user can meet. Every message names the field or file, the value found, and the remedy."""


class VideoGenError(Exception):
    """Base of all expected errors: the command line prints them as one line and exits with code 2."""


class ConfigError(VideoGenError):
    """A configuration key or value is unknown, ill-typed or out of range."""


class DataError(VideoGenError):
    """A file or folder of data is missing, unreadable, truncated or not what its name says."""


class ShapeError(VideoGenError, ValueError):
    """A tensor, frame count or size does not fit the model; the message gives the nearest valid ones."""


class TrainingError(VideoGenError):
    """Training cannot go on: a NaN, a checkpoint that does not fit, an interrupted stage that is missing."""
