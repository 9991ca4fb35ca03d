"""Writes tests/fixtures/templates/differential.json: small templates and what Jinja2 makes of them, set up as
transformers does.

    python tests/templates/differential.py > tests/fixtures/templates/differential.json

needs transformers 5.24.0 and jinja2 3.1.6 on Python 3.11.
"""

import copy
import json
import sys

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

VARIABLES = {
    "s": "Hello World",
    "u": "Ünïcödé ß ǆ ﬁ 日本 ١٢ ²½ \u00ad\u200b Σας ΟΔΟΣ",
    "w": " \t a  b\u00a0c\u2003d\x1ce \n",
    "lines": "one\ntwo\r\nthree\rfour\x0bfive\u2028six\n",
    "n": 7,
    "f": 2.5,
    "big": 123456789012345678,
    "t": True,
    "nil": None,
    "xs": [3, 1, 2],
    "names": ["bob", "Alice", "carol", "alice"],
    "empty": [],
    "d": {"b": 1, "a": "x", "items": "shadow", "n": None, "nested": {"k": [1, 2.0, False, None]}},
    "people": [
        {"name": "Bob", "age": 30, "city": "Rome", "tags": ["x", "y"]},
        {"name": "alice", "age": 25, "city": "paris", "tags": []},
        {"name": "Carol", "age": 30, "city": "Paris"},
    ],
    "_private": "p",
}
MESSAGES = [{"role": "user", "content": "a b <é>"}, {"role": "assistant", "content": "x-y-z"}]


def expressions():
    """Templates of one expression."""
    values = ["s", "n", "f", "t", "nil", "xs", "d", "missing", "empty", "(1,)", "''", "0", "-7", "1.0", "'7'", "range(3)"]
    for op in ["+", "-", "*", "/", "//", "%", "**"]:
        for a, b in [(a, b) for a in values for b in values if hash((a, op, b)) or True]:
            if (len(a) + 3 * len(b) + len(op)) % 5 == 0 or a == b:
                yield f"{a} {op} {b}"
    for op in ["==", "!=", "<", "<=", ">", ">=", "in", "not in"]:
        for i, a in enumerate(values):
            for j, b in enumerate(values):
                if (i * 3 + j * 5 + len(op)) % 9 == 0:
                    yield f"{a} {op} {b}"
    numbers = "7 -7 3 -3 2.5 -2.5 0.1 1e20 1e16 1e15 1e-4 1e-5 123456789.123 0.1+0.2 1/3 2**63 2**100 -2**63 1e300 5e-324 100.0 1.5e-10 0.0 -0.0".split()
    for x in numbers:
        yield x
        yield f"[{x}]"
        yield f"({x}) | round"
        yield f"({x}) | round(2)"
        yield f"({x}) | round(-1)"
        yield f"({x}) | int"
        yield f"({x}) | abs"
        yield f"({x}) | tojson"
        yield f"'%d|%5.1f|%g|%e|%s|%r' % (({x}), ({x}), ({x}), ({x}), ({x}), ({x}))"
        yield f"'%x' % ({x})"
        yield f"'{{}}|{{:>12}}|{{:.2f}}|{{:e}}|{{:g}}|{{:,}}'.format({x}, {x}, {x}, {x}, {x}, {x})"
    for a in [7, -7, 7.5, -7.5]:
        for b in [2, -2, 2.5, -2.5]:
            yield f"({a}) // ({b})"
            yield f"({a}) % ({b})"
            yield f"({a}) / ({b})"
            yield f"({a}) ** ({b})"
    for bounds in ["1:", ":2", "::2", "::-1", "-2:", ":-1", "5:1:-1", "1:5:2", ":0:-1", "-100:100", "100:", "::-2", "0:0", "3:1", "none:2", "::0", "'a':", "1.0:"]:
        for of in ["s", "xs", "(1, 2, 3, 4)", "range(5)", "'日本語x'", "d", "missing", "nil"]:
            yield f"{of}[{bounds}]" if of != "range(5)" else f"{of}[{bounds}] | list"
    for key in ["0", "-1", "5", "'a'", "'items'", "true", "1.0", "none", "missing", "[1]"]:
        for of in ["s", "xs", "d", "(1, 2)", "nil", "n", "range(4)", "missing"]:
            yield f"{of}[{key}]"
    yield from """
2 ** 3 ** 2
-2 ** 2
2 ** -1
not 1 == 2
1 < 2 < 3
1 < 2 > 3
1 == 1.0 == true
1 if false
1 if true else 2
(1 if false) is undefined
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'a']
'a' 'b' "c"
1 + 2 ~ 3 + 4
1 ~ 2 * 3
[1, [2, (3,)], {'a': ()}]
{1: 'a', 1.0: 'b', true: 'c'}
{'a': 1, 'b': {'c': "it's"}}
["it's", 'say "x"', "both ' and \\""]
["tab\\t nl\\n bs\\\\ \\x7f \\x00 é \\u200b \\U0001f600 \\ud7ff"]
(1, 2) + (3,)
[1] + [2]
[1] + (2,)
'ab' * 3
3 * 'ab'
'ab' * -1
[1, 2] * 2
true + true
-true
+ 'a'
- 'a'
none + 1
1 and 2
0 or 'x'
[] or {} or 'last'
not missing
missing
missing.attr
missing['x']
missing + 1
missing == missing
missing != nil
missing in [1]
missing | default('x')
'' | default('x')
'' | default('x', true)
none | default('x', boolean=true)
missing is defined
d.missing
d.missing.deeper
d.items
d['items']
d.nested.k
d.nested['k'][1]
d.get('a')
d.get('zz')
d.get('zz', 5)
d.keys()
d.values()
d.items()
d.keys() | list
d.items() | list
d.copy() == d
d | length
d | list
d | first
d | last
d.pop('a')
d.update({})
d.__class__
d.__class__.x
xs.append(1)
xs.append
xs.append is defined
xs.sort()
xs.index(2)
xs.index(9)
xs.count(1)
(1, 2, 1).count(1)
xs.copy()
xs.nothing
''.join(['a', 'b'])
', '.join(xs)
','.join('abc')
namespace(a=1).a
namespace(a=1, b='x')
namespace({'a': 1}).a
namespace(_x=1)
dict(a=1)
dict([('a', 1), ('b', 2)], c=3)
dict.fromkeys(['a', 'b'], 0)
dict({'a': 1}, a=2)
range(5)
range(2, 8, 3) | list
range(5, 0, -2) | list
range(0)
range(1.0)
range(3)[1]
range(3) | length
range(100001)
range(3) == range(0, 3, 1)
3 in range(5)
3.0 in range(5)
range(3, 6).index(4)
cycler('a', 'b').next()
cycler()
joiner(',')() ~ joiner(',')()
lipsum
raise_exception('no')
raise_exception(1)
strftime_now('%Y') | length
strftime_now('%%|%n|%t|%Q|%')
strftime_now('%Z%z')
abs
nothing()
s()
s.nothing()
none.x
none.x.y
n.x
n.bit_length()
f.is_integer()
true.bit_length()
1.0.is_integer()
messages | length
messages[0].content
messages[-1]['role']
messages | map(attribute='role') | join(',')
messages[0] | tojson
bos_token
_private
'%s' % none
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%s' % [1, 2]
'%s' % {'a': 1}
'%(a)s-%(b)05d' % {'a': 'x', 'b': 42}
'%(a)s' % {}
'%(a)s' % 1
'abc' % 1
'abc' % ()
'abc' % {}
'abc' % [1]
'%d' % 3.9
'%d' % 'x'
'%d' % true
'%i %u' % (1, 2)
'%5d|%-5d|%05d|%+d|% d' % (1, 2, 3, 4, 5)
'%x %X %#x %o %#o' % (255, 255, 255, 8, 8)
'%.3d' % 5
'%c%c' % (65, 'b')
'%c' % 'ab'
'%5s|%-5s|%.2s' % ('a', 'b', 'cdef')
'%r %a' % ('é', 'é')
'%%' % ()
'%*d' % (5, 1)
'%-*d|' % (5, 1)
'%.*f' % (2, 3.14159)
'%e %E %f %F %g %G' % (12345.678, 0.00012, 1.5, 2.5, 1e10, 1e-10)
'%#g %#.3e %#.0f' % (1.5, 1.5, 2.0)
'%g %g %g %g' % (100000, 1000000, 0.0001, 0.00001)
'%5.1f|%-8.2f|%+.1e' % (3.14159, 2.5, 12345.678)
'%f' % (1e400 if false else 1.0)
'%s' % missing
'%d' % missing
'%y' % 1
'%' % 1
'%(' % {}
'%010.3f' % -3.14159
'% 5d' % -3
'%+5d' % 3
'%ld' % 3
'{}'.format(1)
'{} {}'.format('a', none)
'{0} {1} {0}'.format('a', 'b')
'{a} {b[k]} {c.x}'.format(a=1, b={'k': 2}, c={'x': 3})
'{0[1]} {0[0]}'.format([1, 2])
'{{}} {}'.format(1)
'{'.format()
'}'.format()
'{}'.format()
'{x}'.format()
'{} {0}'.format(1)
'{0} {}'.format(1)
'{!r} {!s} {!a}'.format('é', 'é', 'é')
'{!x}'.format(1)
'{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd')
'{:5}|{:5}|{:05}|{:+}|{: }'.format('a', 1, 2, 3, 4)
'{:b} {:o} {:x} {:X} {:#b} {:#x} {:#o}'.format(5, 8, 255, 255, 5, 255, 8)
'{:,} {:_} {:,.2f}'.format(1234567, 1234567, 1234567.891)
'{:010,}'.format(12345)
'{:%} {:.1%}'.format(0.5, 0.123)
'{:.3}'.format('abcdef')
'{:d}'.format(3.5)
'{:s}'.format(3)
'{:d}'.format('x')
'{:5}'.format(none)
'{:5}'.format(true)
'{:d}'.format(true)
'{:{}}'.format('a', 5)
'{:{w}.{p}f}'.format(3.14159, w=10, p=2)
'{:=+8}|{:=8}'.format(5, -5)
'{:<08}|{:>08}'.format(5, 5)
'{:e} {:E} {:g} {:G} {:f} {:F}'.format(12345.6789, 12345.6789, 1e-5, 1e20, 1.0, 1.0)
'{:5}'.format([1])
'{}'.format([1, 'a'])
'{:.0f} {:.0f} {:.0f} {:.0f}'.format(0.5, 1.5, 2.5, 3.5)
'{0.__class__}'.format(1)
'{a}'.format_map({'a': 1})
'{}'.format_map({'a': 1})
'{:#.0f} {:#g}'.format(1.0, 1.0)
""".strip("\n").split("\n")


def methods():
    words = ["s", "''", "'abc'", "'ABC'", "'aBc dEf'", "'  x y '", "'a-b-c'", "'123'", "'é'", "'ß'", "u", "'x1'", "'\\t'", "'Title Case'", "'ὈΔΥΣΣΕΎΣ'", "'ǆx ﬁn'", "'they\\'re bill\\'s'"]
    plain = "capitalize title lower upper swapcase casefold isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper strip lstrip rstrip split rsplit splitlines".split()
    for method in plain:
        for word in words:
            yield f"{word}.{method}()"
    calls = """
split('-') split('-', 1) split(none, 1) split(' ') split('') split(sep='-', maxsplit=1) split('l') rsplit('-', 1) rsplit(none, 1) rsplit('l', 1)
partition('-') rpartition('-') partition('') partition('zz') rpartition('zz') replace('a', 'b') replace('', '-') replace('l', '', 1) replace('l', 'LL', -1)
replace('a') startswith('a') startswith(('a', 'H')) startswith('b', 1) endswith('c') endswith(('c', 'd')) endswith('l', 0, 3) find('l') find('l', 4) find('zz')
rfind('l') index('l') index('zz') rindex('l') count('l') count('') count('l', 4) count('l', 0, 3) find('', 100) count('', 100) startswith('', 100) center(15) center(14, '*') center(3) ljust(15) rjust(15, '.')
ljust(5, 'ab') zfill(15) zfill(2) strip('Hd') strip(none) lstrip('He') rstrip('dl') removeprefix('He') removesuffix('ld') removeprefix('x')
expandtabs() expandtabs(4) splitlines(true) splitlines(keepends=true) join(['1', '2']) join([1]) join('ab') join(none) encode() translate({}) maketrans('a', 'b')
format('x') isalnum(1) upper(1) nosuch() center('x') strip(1)
""".split("\n")
    for line in calls:
        for call in _split_calls(line):
            for word in ["s", "'a-b-c'", "''", "u", "'日本語 l'"]:
                yield f"{word}.{call}"
    for call in ["split()", "rsplit(none, 2)", "split(none, 2)", "splitlines()", "splitlines(true)", "strip()", "expandtabs(8)"]:
        yield f"w.{call}"
        yield f"lines.{call}"
    for number in ["'+5'", "'-5'", "'--5'", "'+'", "'é'"]:
        yield f"{number}.zfill(4)"


def _split_calls(line):
    calls, depth, start = [], 0, 0
    for i, c in enumerate(line):
        depth += (c == "(") - (c == ")")
        if c == " " and depth == 0 and line[i - 1] == ")":
            calls.append(line[start:i])
            start = i + 1
    if line[start:].strip():
        calls.append(line[start:])
    return calls


def filters():
    values = ["s", "u", "xs", "names", "d", "n", "f", "nil", "missing", "''", "empty", "(2, 1)", "range(4)", "'12'", "'3.7'", "'x'", "true", "people"]
    plain = "abs capitalize count default escape e filesizeformat first float forceescape int items last length list lower max min reverse round safe string sum title tojson trim unique upper urlencode wordcount sort dictsort indent truncate center".split()
    for name in plain:
        for value in values:
            end = " | list" if name in ("items", "unique", "reverse") else ""
            yield f"{value} | {name}{end}"
    yield from """
names | sort
names | sort(case_sensitive=true)
names | sort(reverse=true)
xs | sort(true)
people | sort(attribute='age') | map(attribute='name') | join(',')
people | sort(attribute='age,name') | map(attribute='name') | join(',')
people | sort(attribute='age', reverse=true) | map(attribute='name') | join(',')
[1, 'a'] | sort
['b', none] | sort
[[2, 1], [1, 3]] | sort
people | groupby('city')
people | groupby('city') | map('first') | list
people | groupby('city', case_sensitive=true) | map('first') | list
people | groupby('tags', default=[]) | length
(people | groupby('age'))[0].grouper
(people | groupby('age'))[0].list | length
people | groupby('zz')
people | groupby('zz', default='q') | length
people | map(attribute='name') | list
people | map(attribute='tags', default='none') | list
people | map(attribute='tags.0') | list
people | map(attribute='zz') | list
people | map('length') | list
names | map('upper') | list
names | map('replace', 'a', 'o') | list
names | map('nosuch') | list
names | map | list
names | map('upper')
(names | map('upper')) | length
(names | map('upper')) | first
(names | map('upper')) | last
(names | map('upper'))[0]
names | map(attribut='x') | list
xs | select | list
xs | select('odd') | list
xs | select('gt', 1) | list
xs | select('divisibleby', 3) | list
xs | reject('odd') | list
xs | reject | list
xs | select('nosuch') | list
xs | select('in', [1, 2]) | list
people | selectattr('tags') | map(attribute='name') | list
people | selectattr('age', 'equalto', 30) | map(attribute='name') | list
people | rejectattr('age', '==', 30) | map(attribute='name') | list
people | selectattr('tags', 'defined') | map(attribute='name') | list
people | selectattr('zz', 'undefined') | list | length
people | selectattr | list
missing | select('odd') | list
nil | map('upper') | list
n | map('upper') | list
0 | select | list
xs | batch(2) | list
xs | batch(2, 'x') | list
xs | batch(0) | list
xs | slice(2) | list
xs | slice(2, 'x') | list
xs | slice(5) | list
xs | slice(0) | list
names | unique | list
names | unique(true) | list
people | unique(attribute='age') | map(attribute='name') | list
names | min
names | max
names | min(case_sensitive=true)
people | max(attribute='age')
[] | min
[1, 'a'] | max
xs | sum
[1.5, 2] | sum
[[1], [2]] | sum(start=[])
people | sum(attribute='age')
people | sum('age', 100)
['a'] | sum
missing | sum
xs | join
xs | join(',')
xs | join(d='-')
people | join(', ', attribute='name')
none | join
s | join('.')
missing | join(',')
xs | join(1)
d | dictsort
{'b': 1, 'A': 2, 'a': 0} | dictsort
{'b': 1, 'A': 2, 'a': 0} | dictsort(true)
{'b': 1, 'A': 2, 'a': 0} | dictsort(false, 'value')
{'b': 1, 'A': 2} | dictsort(by='value', reverse=true)
{'b': 1} | dictsort(by='zz')
d | items | list
xs | items | list
d | tojson
d | tojson(indent=2)
d | tojson(indent=0)
d | tojson(sort_keys=true)
d | tojson(indent=2, sort_keys=true, separators=(',', ':'))
d | tojson(separators=[', ', '='])
d | tojson(indent='--')
d | tojson(true)
d | tojson(false, 4)
[[], {}, [[]], {'a': []}] | tojson(indent=1)
u | tojson
u | tojson(ensure_ascii=true)
"\\x7f\\x1f\\u2028\\"\\\\/" | tojson
"\\x7f😀" | tojson(ensure_ascii=true)
{1: 2, none: 3, true: 4, 1.5: 5} | tojson
{(1, 2): 3} | tojson
{'b': 1, 2: 3} | tojson(sort_keys=true)
(1, 2) | tojson
range(3) | tojson
missing | tojson
namespace() | tojson
d.keys() | tojson
1e400 | tojson
('inf' | float) | tojson
('nan' | float) | tojson
'inf' | float
'nan' | float
'-Infinity' | float
'1_000' | float
'1__0' | float
' 12 ' | float
'1e3' | float
'0x10' | float
'٣' | float
'' | float
'x' | float(1.5)
'.5' | float
'5.' | float
none | float
[] | float
'42' | int
' 42 ' | int
'42.9' | int
'-42' | int
'+42' | int
'1_000' | int
'_1' | int
'0x1A' | int
'0x1A' | int(0, 16)
'1A' | int(base=16)
'0b11' | int(base=2)
'0o17' | int(base=8)
'0x1A' | int(base=0)
'10' | int(base=0)
'010' | int(base=0)
'zz' | int(-1)
'zz' | int(default=5)
'zz' | int(base=36)
'٣' | int
'1e3' | int
'inf' | int
'nan' | int
none | int
none | int(3)
[] | int
3.99 | int
-3.99 | int
true | int
42.55 | round
42.55 | round(1)
42.55 | round(1, 'floor')
42.55 | round(1, 'ceil')
42.55 | round(0, 'floor')
42 | round
42 | round(-1)
45 | round(-1)
55 | round(-1)
42 | round(0, 'ceil')
2.5 | round
3.5 | round
-2.5 | round
2.675 | round(2)
1234.5 | round(-2)
1250.0 | round(-2)
1350.0 | round(-2)
1234 | round(-2, 'floor')
0.5 | round | int
5 | round(1, 'floor')
'x' | round
1 | round(0, 'zz')
true | round
1000 | filesizeformat
1500000 | filesizeformat
1024 | filesizeformat(true)
1 | filesizeformat
0 | filesizeformat
'300' | filesizeformat
1e30 | filesizeformat
s | indent
'a\\nb\\n\\nc' | indent
'a\\nb\\n\\nc' | indent(2)
'a\\nb\\n\\nc' | indent(2, true)
'a\\nb\\n\\nc' | indent(2, first=true, blank=true)
'a\\nb\\n\\nc\\n' | indent(width='> ', blank=true)
'a\\rb\\r\\nc' | indent
s | truncate(5)
s | truncate(8, true)
s | truncate(5, true, '..', 0)
s | truncate(6, end='')
s | truncate(2)
'foo bar baz qux' | truncate(9)
'foo bar baz qux' | truncate(9, leeway=0)
'foo bar baz qux' | truncate(11, false, '...', 0)
s | center(20)
s | center(width=15)
s | trim('Hd')
'  x ' | trim
'xxaxx' | trim(chars='x')
12 | trim
s | replace('o', '0')
s | replace('o', '0', 1)
s | replace('', '-')
12 | replace(1, 2)
s | replace('o')
s | replace('o', none)
'a b/c?é=&' | urlencode
{'a b': 'c/d', 'e': 1} | urlencode
[('a', 1), ('b', 'x y')] | urlencode
12 | urlencode
'<a href="x">\\'&' | e
'<a>' | e ~ '<b>'
'<a>' | safe
'<a>' | safe | e
'<a>' | e | e
'<a>' | forceescape | forceescape
('<a>' | safe) is escaped
('<a>' | safe) is string
('<a>' | safe) + '<b>'
('<a>' | safe) ~ '<b>'
[('<a>' | safe)]
('<a>' | safe) | upper
('<a>' | safe) | length
('<a>' | safe) | tojson
('<a>' | safe) | replace('a', 'b')
5 | e
'hello world-foo (bar)' | title
"they're o'neil" | title
'a b_c d-e f' | wordcount
'' | wordcount
'日本 語' | wordcount
'%s-%s' | format(1, 2)
'%(a)s' | format(a=1)
'%s' | format
'x' | format(1)
'%s' | format(1, a=2)
xs | first
'' | first
{} | first
s | reverse
xs | reverse | list
xs | reverse
d | reverse | list
xs | reverse | first
(xs | reverse) | length
none | reverse
(1, 2) | reverse | list
s | list
d | list
nil | list
s | last
xs | last
d.items() | last
s | attr('upper')
(s | attr('upper'))()
d | attr('a')
d | attr('items')
missing | attr('x')
namespace(a=1) | attr('a')
xs | attr('append')
s | string
xs | string
missing | string
xs | count
n | length
s | length
u | length
s | nosuch
s | pprint
s | random
s | striptags
s | urlize
s | wordwrap(5)
d | xmlattr
n | default
s | upper(1)
s | upper(x=1)
s | join(x=1)
s | center(1, 2)
xs | abs
'a' | abs
-5 | abs
-5.5 | abs
-true | abs
1.5 | int | string
'a,b' | replace(',', ';') | upper
""".strip("\n").split("\n")


def tests():
    values = ["s", "'abc'", "'ABC'", "''", "n", "8", "f", "2.0", "true", "false", "nil", "missing", "xs", "(1,)", "d", "d.items()", "d.keys()", "range(3)", "namespace()", "xs | map('abs')", "s.upper", "dict", "range", "loop", "cycler('a')", "'a' | safe"]
    for test in "defined undefined none boolean false true integer float number string mapping sequence iterable callable lower upper escaped odd even".split():
        for value in values:
            yield f"({value}) is {test}"
    yield from """
4 is divisibleby 2
4 is divisibleby(3)
4 is divisibleby 0
4.0 is even
-3 is odd
3.5 is odd
'x' is odd
1 is eq 1
1 is equalto 1.0
1 is ne 2
2 is gt 1
2 is greaterthan 1
2 is ge 2
1 is lt 2
1 is lessthan 2
1 is le 1
'a' is lt 1
1 is in [1, 2]
'a' is in 'abc'
1 is in 5
1 is not in [1]
1 is sameas 1
true is sameas true
none is sameas none
xs is sameas xs
[] is sameas []
'a' is sameas 'b'
1 is sameas 1.0
1000 is sameas 1001
'upper' is filter
'nosuch' is filter
'pprint' is filter
'odd' is test
'nosuch' is test
1 is filter
s is not defined
s is not string
s is string and n is number
not s is string
s is defined or false
1 is nosuch
1 is odd(1)
n is divisibleby n
missing is iterable
'a' is string is string
('a' if s is string else 'b')
messages[0] is mapping and messages[0].content is string
""".strip("\n").split("\n")


STATEMENTS = r"""
{% for x in xs %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.length }};{% endfor %}
{% for x in xs %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}
{% for x in xs %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}
{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}
{% for x in xs %}{{ loop.cycle('a', 'b') }}{% endfor %}
{% for x in xs %}{{ loop.cycle() }}{% endfor %}
{% for x in xs %}{{ loop.depth }}{{ loop.depth0 }}{% for y in xs %}{{ loop.depth }}{% endfor %}{% endfor %}
{% for x in xs %}{{ loop }}{% endfor %}
{% for x in xs if x > 1 %}{{ x }}{{ loop.length }}{{ loop.last }}{% else %}none{% endfor %}
{% for x in xs if x > 10 %}{{ x }}{% else %}none{% endfor %}
{% for x in [] %}{% else %}empty{% endfor %}
{% for x in missing %}x{% else %}empty{% endfor %}
{% for x in none %}x{% endfor %}
{% for x in 5 %}x{% endfor %}
{% for x in 'abc' %}{{ x }}-{% endfor %}
{% for k in d %}{{ k }},{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }},{% endfor %}
{% for k, v in d | dictsort %}{{ k }},{% endfor %}
{% for k, v in [[1, 2], [3, 4]] %}{{ k + v }},{% endfor %}
{% for k, v in [[1, 2, 3]] %}{{ k }}{% endfor %}
{% for k, v in [[1]] %}{{ k }}{% endfor %}
{% for k, v in [1] %}{{ k }}{% endfor %}
{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in ['xy', 'zw'] %}{{ b }}{{ a }}{% endfor %}
{% for x in xs recursive %}{{ x }}{% endfor %}
{% for x in [[1, [2, [3]]], [4]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}
{% for x in xs %}{{ loop(x) }}{% endfor %}
{% for x in xs %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}
{% for x in xs %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}e{% endfor %}
{% break %}
{% for x in xs %}{% set y = x %}{% endfor %}{{ y }}
{% set y = 0 %}{% for x in xs %}{% set y = y + x %}{{ y }},{% endfor %}{{ y }}
{% set ns = namespace(t=0) %}{% for x in xs %}{% set ns.t = ns.t + x %}{% endfor %}{{ ns.t }}
{% set ns.x = 1 %}
{% set d.x = 1 %}
{% set ns = namespace() %}{% set ns._x = 1 %}
{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b }}{{ ns }}
{% set ns = namespace(a=1) %}{{ ns.b }}{{ ns['a'] }}{{ ns.b is defined }}{{ ns is mapping }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}
{% set a, b = 1 %}{{ a }}
{% set a = 1, 2 %}{{ a }}
{% set x %}a{{ n }}b{% endset %}[{{ x }}]{{ x | length }}
{% set x | upper %}abc{% endset %}{{ x }}
{% set x | replace('a', 'b') | upper %}abc{% endset %}{{ x }}
{% set s %}{{ s }}!{% endset %}{{ s }}
{{ s }}{% set s %}{{ s }}!{% endset %}{{ s }}
{% set s = s ~ '!' %}{{ s }}
{% if t %}{% set q = 1 %}{% endif %}{{ q }}
{% if not t %}{% set s = 1 %}{% endif %}{{ s }}
{% if not t %}{% set s = 1 %}{% else %}{{ s }}{% endif %}{{ s }}
{% for m in messages %}{{ n }}{% endfor %}{% set n = 5 %}{{ n }}
{% macro g() %}{{ n }}{% endmacro %}{{ g() }}{% set n = 5 %}{{ g() }}
{% macro g() %}{{ zz }}{% endmacro %}{{ g() }}{% set zz = 5 %}{{ g() }}
{% set zz = 1 %}{% macro g() %}{{ zz }}{% set zz = 2 %}{{ zz }}{% endmacro %}{{ g() }}{{ zz }}
{% if n == 7 %}a{% elif n == 8 %}b{% else %}c{% endif %}
{% if n == 8 %}a{% elif n == 7 %}b{% else %}c{% endif %}
{% if missing %}a{% else %}b{% endif %}
{% if xs | select('gt', 10) %}truthy{% endif %}
{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}|{{ f(1, c=3) }}|{{ f(b=5, a=4) }}|{{ f() }}
{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}
{% macro f(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, x=4) }}
{% macro f(a) %}{{ varargs }}{% endmacro %}{{ f(1, 2, x=4) }}
{% macro f(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ f() }}
{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}body {{ n }}{% endcall %}
{% macro f() %}{{ caller(1, b=2) }}{% endmacro %}{% call(a, b=3, c=4) f() %}{{ a }}{{ b }}{{ c }}{% endcall %}
{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}
{% macro f() %}{{ caller() }}{% endmacro %}{{ f() }}
{% macro f() %}x{% endmacro %}{% call f() %}body{% endcall %}
{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(4) }}
{% macro f() %}{% endmacro %}{{ f }}{{ f.name }}{{ f.arguments }}{{ f.catch_kwargs }}
{% macro f(x, y) %}{% endmacro %}{{ f.arguments }}
{% macro f() %} a {% endmacro %}{{ f() | trim }}{{ f() | length }}
{% macro loop() %}{% endmacro %}
{% for loop in xs %}{% endfor %}
{% for x in xs %}{% set loop = 1 %}{% endfor %}
{% macro f(a, a) %}{% endmacro %}
{% macro f(a=1, b) %}{% endmacro %}
{% call 1 %}{% endcall %}
{{ f(a=1, a=2) }}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% with n = n + 1 %}{{ n }}{% endwith %}{{ n }}
{% with %}{% set n = 1 %}{{ n }}{% endwith %}{{ n }}
{% with a = 1, b = a %}{{ b }}{% endwith %}
{% filter upper %}abc {{ s }}{% endfilter %}
{% filter replace('a', 'b') | upper %}aaa{% endfilter %}
{% filter upper %}{% set n = 1 %}{{ n }}{% endfilter %}{{ n }}
{% generation %}a{{ n }}{% endgeneration %}
{% generation %}{% set n = 1 %}{{ n }}{% endgeneration %}{{ n }}
{% for x in xs %}{% generation %}{{ loop.index }}{% endgeneration %}{% endfor %}
{% for x in xs %}{% generation %}{% break %}{% endgeneration %}{% endfor %}
{%- generation -%} a {%- endgeneration -%} b
{% for x in xs %}{% set y %}{% if x == 1 %}{% break %}{% endif %}{% endset %}{{ x }}{% endfor %}
{% raw %}{{ x }}{% if %}{% endraw %}
{% raw -%}   a   {%- endraw %}
  {%- raw %} a {% endraw -%}  b
{# comment #}a{#- c -#}  b
a {#- c #} b
a  {# c #}
b
a
  {% if t %}
  b
  {% endif %}
c
a
  {%+ if t %}
  b
  {%+ endif +%}
c
a  {%- if t -%}  b  {%- endif -%}  c
{% if t -%}
   b
{%- endif %}
{{- s -}}   x
x   {{- s }}
{{ '{{' }}{{ '%}' }}
{{ {'a': {'b': 1}}['a']['b'] }}
{{ {} }}{{ {'a': 1,} }}{{ [1,] }}{{ (1,) }}{{ () }}
{{ (1) }}{{ 1, 2 }}
{% print 1, 2 %}
{% if 1, %}x{% endif %}
{{ f( }}
{{ 1 + }}
{{ a b }}
{% if %}{% endif %}
{% endif %}
{% if t %}
{% for %}{% endfor %}
{% unknown %}
{% block a %}{% endblock %}
{% include 'x' %}
{% extends 'x' %}
{% import 'x' as y %}
{% from 'x' import y %}
{% autoescape true %}{% endautoescape %}
{% do 1 %}
{{ self }}
{{ 1 }
{{ }}
{{ 'abc }}
{% set %}{% endset %}
{% set 1 = 2 %}
{% set none = 2 %}
{{ x! }}
{{ 1 ; 2 }}
{{ (1 }}
{{ [1) }}
{# open
{% raw %}
{{ "a\
b" }}
{{ 'line
break' }}
{{ '\u00e9\x41\101\q\é' }}
{{ '\N{BULLET}' }}
{{ '\ud800' }}
{{ '\x4' }}
{{ 0x1F }}{{ 0b101 }}{{ 0o17 }}{{ 1_000 }}{{ 1_0.5 }}{{ 007 }}
{{ 00 }}{{ 1e3 }}{{ 1.5E-3 }}{{ 1.e }}
{{ xs.0 }}{{ xs.1 }}{{ d.nested.k.0 }}
{{ xs[0, 1] }}{{ xs[1:2, 0] }}
{{ xs[] }}
{{ s[1:3][0] }}{{ s[:-1] | upper }}
{{ s | upper | lower }}{{ (s | upper)[0] }}{{ s.upper()[0] }}
{{ -1 | abs }}{{ -n | abs }}{{ 2 * 3 | string }}
{{ not t and n }}{{ t and not n }}
{{ 'a' in 'abc' and 1 not in xs }}
{{ n is defined and n > 3 }}
{{ 'x' if n > 3 else 'y' if n > 1 else 'z' }}
{{ ('a', 'b') | join }}{{ ['a'] + ['b'] }}
{{ s.split(' ') | map('upper') | join('-') }}
{{ [1, 2, 3][-1] }}{{ 'abc'[-1] }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ messages | selectattr('role', 'in', ['user', 'tool']) | map(attribute='content') | first }}
{% set it = xs | map('string') %}{{ it | list }}{{ it | list }}
{% set it = xs | map('string') %}{% for x in it %}{{ loop.length }}{{ x }}{% endfor %}
{% set it = xs | map('string') %}{% for x in it %}{{ loop.last }}{{ loop.nextitem }}{% endfor %}
{{ 2 in (xs | map('abs')) }}
{{ (xs | map('nosuch')) is iterable }}
{{ [].append is defined }}{{ {}.update }}
{{ ''.__class__.__mro__ }}
{{ namespace.__init__ }}
{{ f(*[1, 2]) }}
{% macro f(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(*[1, 2], c=3) }}{{ f(**{'a': 1, 'b': 2, 'c': 3}) }}{{ f(1, *(2, 3)) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, **{'a': 2}) }}
{% macro f(caller=1) %}{{ caller }}{% endmacro %}{{ f() }}
{% macro f(caller) %}{{ caller }}{% endmacro %}{{ f() }}
{{ cycler('a', 'b').current }}{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}
{% set j = joiner() %}{% for x in xs %}{{ j() }}{{ x }}{% endfor %}
{% set j = joiner('|') %}{% for x in xs %}{{ j() }}{{ x }}{% endfor %}
{% if false %}{{ s | nosuch }}{% endif %}ok
{% if false %}{% for x in xs %}{{ s | nosuch }}{% endfor %}{% endif %}ok
{{ s if true else s | nosuch }}
{% if 1 is nosuch %}{% endif %}
{% if false %}{{ 1 is nosuch }}{% endif %}ok
{{ s | map('nosuch') is iterable }}
{{ 'a' | default }}{{ missing | default }}
{% set x = [] %}{% for i in range(3) %}{% set x = x + [i] %}{% endfor %}{{ x }}
{% set ns = namespace(l=[]) %}{% for i in range(3) %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l }}
{% set ns = namespace() %}{% set ns.self = ns %}{{ ns.self.self is sameas ns }}
{% set a = {'x': 1} %}{% set b = dict(a, y=2) %}{{ a }}{{ b }}
{% for a in [1, 2] %}{% for b in [3, 4] %}{{ loop.index }}{% if b == 3 %}{% continue %}{% endif %}{% endfor %}{{ loop.index }}{% endfor %}
{% for x in xs %}{% if loop.last %}!{% endif %}{{ x }}{% endfor %}
{% for x in xs if loop.index > 1 %}{{ x }}{% endfor %}
{% for x in xs %}{{ x }}{% else %}{{ loop }}{% endfor %}
{% for x in d.values() | list if x is string %}{{ x }}{% endfor %}
{% for x in range(2) %}{% set y = x %}{% set f = y %}{{ f }}{% endfor %}
{{ '%s' | format('a') }}{{ "%s" % 'a' }}
{{ 'a\nb' }}{{ "a\\nb" }}{{ 'a\'b' }}
{{ "<|im_start|>" + messages[0]['role'] + '\n' }}
{{ messages[0].content.split('</think>')[-1].lstrip('\n') }}
{{ (messages[1].content.split('-') | first) + '!' }}
{{ raise_exception('Conversation roles must alternate ' ~ n) }}
{% if messages[0].role != 'system' %}{{ raise_exception("no system") }}{% endif %}
{{ messages[5].content }}
{{ messages[0].tool_calls }}{{ messages[0].tool_calls | length }}
{{ messages[0].content is string }}{{ messages[0].content is iterable }}{{ messages[0].content is sequence }}
{{ messages[0].get('tool_calls', []) | length }}
{{ tools }}{{ tools is none }}{{ documents }}{{ add_generation_prompt }}
{% set content = messages[0].content %}{%- if content is string %}{{- content }}{%- endif %}
{%- for message in messages -%}{%- if loop.first -%}{{ bos_token }}{%- endif -%}[{{ message['role'] }}]{{ message['content'] | trim }}{%- endfor -%}{%- if add_generation_prompt -%}[assistant]{%- endif -%}
{% if (messages[0]['role'] == 'user') != (0 % 2 == 0) %}bad{% else %}good{% endif %}
{{ '0' * 3 }}{{ 10 // 3 }}{{ 10 / 4 }}{{ 10 % 3 }}{{ 10 / 5 }}
{{ 1.0 }}{{ 1e5 }}{{ 1e16 }}{{ 1.10 }}
{{ True }}{{ None }}{{ False }}{{ true }}{{ none }}
{{ xs == [3, 1, 2] }}{{ d == d }}{{ (1, 2) == [1, 2] }}{{ 1 == true }}{{ '1' == 1 }}
{{ [1, 2] < [1, 3] }}{{ (1,) < (1, 2) }}{{ 'a' < 'B' }}
{{ [1, 'a'] < [1, 2] }}
{{ none < 1 }}
{{ d < d }}
{{ 10000000000000000000000 * 10000000000000000 }}
{{ 2 ** 200 }}
{{ 170141183460469231731687303715884105727 + 1 }}
{{ 99999999999999999999999999999999999999999999 }}
{{ 9007199254740993 / 2 }}
{{ 1e400 }}
{{ (-8) ** 0.5 }}
{{ 0 ** -1 }}
{{ 0.1 + 0.2 }}{{ 1e22 }}{{ 123456789.123456789 }}
{{ 7.0 // 2 }}{{ -7 // 2.0 }}{{ -7.5 % 2 }}{{ 7 % -2.5 }}
""".strip("\n").split("\n")

MULTILINE = [
    "a\r\nb\r{{ s }}\r\n", "a\n\n", "\n", "", "{{ s }}\n", "{{ s }}\n\n", "  {% if t %}\n  x\n  {% endif %}\n", "x  {% if t %}\n  y{% endif %}\n z",
    "{% if t %}\n\na{% endif %}", "{{ s }}\n{% if t %}\nb\n{% endif %}\n", "\t{% for x in xs %}\n\t{{ x }}\n\t{% endfor %}\n", "{#c#}\n\nb",
    "  {#c#}  \nb", "{% raw %}\n a {% endraw %}\nb", "  {% raw %}\n {{ a }}\n  {% endraw %}\nb", "a\u2028{% if t -%} \u00a0 b{% endif %}",
    "{%- for m in messages %}\n    {{- '<|' + m.role + '|>\\n' }}\n    {%- if m.content %}\n        {{- m.content }}\n    {%- endif %}\n{%- endfor %}\n",
    "{% macro f(x) %}\n  [{{ x }}]\n{% endmacro %}\n{{ f(1) }}\n{{ f(2) }}", "{% set x %}\n  a\n{% endset %}\n[{{ x }}]",
    "{% set x = {\n  'a': 1,\n  'b': [1,\n 2]\n} %}\n{{ x }}", "{{\n s\n}}", "{%\nif t\n%}a{%\nendif\n%}", "{% if t %}a{% endif %} \n b", "{% if t +%}\na{% endif +%}\nb",
    "{{+ s +}}", "{{ s }}{#- c +#}\nb", "{% generation %}\na\n{% endgeneration %}\nb", "{% filter upper %}\n a\n{% endfilter %}\n b", "{% call f() %}{% endcall %}",
    "a  {# c #}\nb", "a\n  {%+ if t %}\n  b\n  {%+ endif +%}\nc", "a\n  {%- if t -%}\n  b\n  {%- endif -%}\n  c",
    "a\n  {% if t %}\n  b\n  {% endif %}\nc", "{% if t -%}\n   b\n{%- endif %}", "{{ 'line\nbreak' }}", '{{ "a\\\nb" }}',
    "{{ 'a\r\nb' }}", "line1 {{ s\n}} {{ missing.x }}", "{% for x in xs -%}\n  {{ x }}\n{%- endfor %}\nend",
]


def want(template):
    try:
        return {"ok": _compile_jinja_template(template).render(
            messages=MESSAGES, tools=None, documents=None, add_generation_prompt=True, bos_token="<s>",
            # The filter indent changes a list that it is given.
            **copy.deepcopy(VARIABLES))}
    except Exception as error:
        return {"err": type(error).__name__}


def main():
    assert (transformers.__version__, jinja2.__version__) == ("5.24.0", "3.1.6")
    templates = []
    for make in (expressions, methods, filters, tests):
        templates += ["{{ " + expression + " }}" for expression in make() if expression]
    templates += STATEMENTS + MULTILINE
    cases = []
    for template in dict.fromkeys(templates):
        result = want(template)
        # What Python writes here is where in memory an object is.
        if " at 0x" in result.get("ok", ""):
            result = {"err": "an address in memory"}
        if any(0xD800 <= ord(c) < 0xE000 for c in result.get("ok", "")):
            result = {"err": "a lone surrogate, which is no text"}
        cases.append([template, result["ok"]] if "ok" in result else [template, None, result["err"]])
    print('{"variables":', json.dumps(VARIABLES, ensure_ascii=True) + ',')
    print('"messages":', json.dumps(MESSAGES) + ',')
    print('"cases": [')
    print(",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases))
    print("]}")
    print(len(cases), "cases", file=sys.stderr)


if __name__ == "__main__":
    main()
