"""Several element-wise operations of trits in one pass over memory."""

import inspect
from collections.abc import Callable

from ._trit import FusedTrits, TritExpression, _expressions, _fused

__all__ = ["fuse"]


def fuse(function: Callable[..., TritExpression]) -> FusedTrits:
    """Puts the operations of a function together, so that they run in one pass over memory.

    The function takes positional parameters and gives what `trit.tadd`, `tmul`, `tmin`, `tmax`, `tnot` and
    `ternary_fma` of them give. It is called once, here, with values that stand for arrays. What is returned is called
    with as many arrays of equal shape, all int8 or all PackedTrits, and gives an array of that kind and shape; int8 results
    go into `out` where it is given. `fuse` can stand as a decorator:

        @trit.fuse
        def exclusive_or(a, b):
            return trit.tmax(trit.tmin(a, trit.tnot(b)), trit.tmin(trit.tnot(a), b))

        exclusive_or(x, y)

    Raises TypeError for parameters that are not positional and for another result, ValueError for a chain that needs more
    than about 60 values at a time.
    """
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"the parameter {name} is not positional: name each array that the function takes")
        names.append(name)
    if not names:
        raise TypeError("the function has no parameters: name each array that it takes")
    result = function(*_expressions(len(names)))
    if not isinstance(result, TritExpression):
        raise TypeError(f"the function gives {type(result)}: return what trit's operations of its parameters give")
    return _fused(result, names)
