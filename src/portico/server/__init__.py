"""The composition root: joins the rooms into one server. The data path runs on the main thread's loop (`dataplane.py`
and what it holds), the control plane on a second thread's loop (`control.py` and what it holds).
"""
