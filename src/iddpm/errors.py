"""The one exception meant for the user's eyes."""


class UserError(Exception):
    """Something the user can act on: its message is one clear line, printed without a traceback."""
