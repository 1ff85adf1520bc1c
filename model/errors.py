"""The root of every error whose message is meant for the user. Anything else that is raised is a fault of ours.

Each package keeps the errors of its own beside the code that raises them.
"""


class RankoneError(Exception):
    """Something that the user can mend; the message says what was wrong and what to do."""


class Interrupted(RankoneError):
    """The work was asked to stop, and did."""
