"""What jsonargparse says of a mistake, in one or two lines that the user understands."""

import re
from collections.abc import Iterable

from src.config_check import check_arguments, resolve
from src.errors import UserError, nearest

_UNKNOWN_OPTION = re.compile(
    r"unrecognized arguments: (?:--)?([\w.+]+)|does not accept option '([\w.+]+)'"
)
_UNKNOWN_ARGUMENT = re.compile(r"Option '(\w+)' is not accepted.*class_path='([\w.]+)'", re.DOTALL)
_NO_ATTRIBUTE = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_KINDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false",
    "list": "a list", "NoneType": "null",
}  # fmt: skip
_PLAIN = re.compile(rf"'[^']*'|(?<![\w.])(?:{'|'.join(_KINDS)})(?![\w.\[])")  # or quoted: stays
_LITERAL = re.compile(r"typing\.Literal\[([^\]]*)\]")
_UNION = re.compile(r"Subtypes: \[([^\n]*)\]\n.*?Given value: ([^\n]*)", re.DOTALL)
# Of the first class in a list that was tried, and what it has against the arguments.
_IN_CLASS = re.compile(
    r"Problem with given class_path '([\w.]+)':\s+(.*?)(?=\n    - |\n  \S|$)", re.DOTALL
)
_OPTION = re.compile(r"Option '(\w+)' is not accepted")
_ARGUMENT = re.compile(r'Parser key "(\w+)":')
_VALUE = re.compile(r"Expected a (.*?)\. Got value: ([^\n]*?)(?:\. Got value: Namespace|\n|$)")
_CALLABLE = re.compile(r"Callable.*?(Expected a .*)", re.DOTALL)
_KEY = re.compile(r'Parser key "([\w.]+)"')


def explain(message: str, allowed: Iterable[str]) -> str:
    """Return a parser's message with the nearest right name, in one or two lines.

    Args:
        message: What jsonargparse says.
        allowed: The options that there are, dotted.
    """
    key = _KEY.search(message)
    where = f"--{key[1]}" if key else ""
    if option := _UNKNOWN_OPTION.search(message):
        name = option[1] or option[2]
        hint = nearest(name, allowed) or "see --help for the list"
        return f"there is no option '{name}'; {hint}"
    try:
        if argument := _UNKNOWN_ARGUMENT.search(message):
            check_arguments(resolve(argument[2], where), {argument[1]: None}, where)
        if attribute := _NO_ATTRIBUTE.search(message):
            resolve(f"{attribute[1]}.{attribute[2]}", where)
        inside = _IN_CLASS.search(message)
        if inside and (told := _explain_class(inside[1], inside[2], where)):
            return told
    except UserError as error:
        return str(error)
    if told := _explain_value(message, where):
        return told
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip())
    return _KEY.sub(f"{where}:", _without_class(text)).replace(":: ", ": ")


def _explain_class(class_path: str, problem: str, where: str) -> str | None:
    """Return what is wrong with an argument of a class in a list; None if that is not told.

    Raises:
        UserError: if the class has no such argument.
    """
    if option := _OPTION.search(problem):
        check_arguments(resolve(class_path, where), {option[1]: None}, where)
    argument = _ARGUMENT.search(problem)
    return argument and _explain_value(problem, f"{where}: {argument[1]} of {class_path}")


def _explain_value(message: str, where: str) -> str | None:
    """Return that a value is none of a union's kinds, or not of its one kind."""
    if union := _UNION.search(message):
        value = union[2].partition(". Got value: ")[0]
        return f"{where}: {value!r} is none of: {_in_words(union[1])}"
    if one := _CALLABLE.search(message):
        return _explain_value(one[1], f"{where}: one of its arguments")
    if one := _VALUE.search(message):
        return f"{where} is {one[2]!r}; expected is {_in_words(one[1])}"
    return None


def _in_words(kinds: str) -> str:
    """Return types as a user calls them; what is quoted stays."""
    plain = _LITERAL.sub(r"\1", _without_class(kinds))
    return _PLAIN.sub(lambda kind: _KINDS.get(kind[0], kind[0]), plain)


def _without_class(text: str) -> str:
    return re.sub(r"<class '([\w.]+)'>", r"\1", text)
