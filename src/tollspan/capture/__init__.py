"""One HTTP attempt from request to record: what is asked before it is sent, what the wire says, how it ended.

`attempt.py` is its life, `recorder.py` what all attempts of a process share and the views that each record is given to.
"""
