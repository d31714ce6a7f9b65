"""What a user can mend about a question of lineage."""

from tasks.errors import InbetweenError


class LineageError(InbetweenError):
    """A question that has no answer: an unknown or ambiguous name, a record that cannot be read."""


class LockFileError(LineageError):
    """A dvc.lock that is not as DVC writes it; the text names the line or the stage, and the remedy."""
