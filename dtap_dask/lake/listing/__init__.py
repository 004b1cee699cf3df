"""Lists the files of a source, with the values of their hive partition folders; no file is opened.

Open `discover.py` first. Folders of table formats are refused: only the table's log knows which files count.
"""
