"""The confidence of every interval here, and how many standard errors it takes."""

from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
"""What lies beyond either end."""
NORMAL_REACH = float(ndtri(1 - TAIL))
"""Standard errors from a normal value to an end of its interval."""


def student_reach(freedom: int) -> float:
    """The same where the standard error is known by so many degrees of freedom: Student's t."""
    return float(stdtrit(freedom, 1 - TAIL))
