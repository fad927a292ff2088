# The records of each file named on standard input (one a line), by Python's csv module in its default dialect: a line
# for each record with its fields in hexadecimal, then "." for the end of the file, or "!" where the module raised an error.
import _csv
import sys

_csv.field_size_limit(1 << 30)
for path in sys.stdin.read().split('\n'):
    if path == '':
        continue
    try:
        with open(path, encoding='utf-8-sig', newline='') as source:
            for record in _csv.reader(source):
                print(','.join('x' + field.encode().hex() for field in record))
        print('.')
    except _csv.Error:
        print('!')
