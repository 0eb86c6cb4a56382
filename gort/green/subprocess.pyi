# For type checkers it is what it is a twin of.
from subprocess import *
