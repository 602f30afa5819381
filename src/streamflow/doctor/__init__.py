"""The examinations of `streamflow doctor`: of a broker and the flows on it (`broker.py`), and of files written for Jina (`flow.py`)."""
