"""A script on a laptop that uses what was deployed to a server on another machine.

portico token set --server-url http://192.0.2.1:7777 --token-id ak-…
portico deploy class_methods.py
python remote_client.py
"""

import modal

total = modal.Function.from_name("class-methods", "total")
print(total.get_web_url())

Counter = modal.Cls.from_name("class-methods", "Counter")
print(list(Counter(step=2).square.map(range(4))))
