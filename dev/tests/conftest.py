import sys
from pathlib import Path

DEV = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(DEV), str(DEV/'bench')] # the tools of this folder: notebooks, check_style, ...
