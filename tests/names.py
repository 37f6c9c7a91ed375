"""A name server of a test's own, on a port of loopback."""

from __future__ import annotations

import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

SILENT = "silent"  # instead of records: it does not answer
BROKEN = "broken"  # instead of records: it answers that it cannot


class NameServer:
    """Answers over UDP. `records` has what it knows: by name, a list of ("A", "192.0.2.7"), or one of the words above.

    A name below "*.example.com" has its records, where it has none of its own.
    """

    def __init__(self) -> None:
        self.records: dict[str, list[tuple[str, str]] | str] = {}
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """End it; its own last datagram wakes it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(4096)
            if not data:
                return
            answer = self._answer(dns.message.from_wire(data))
            if answer is not None:
                self._socket.sendto(answer.to_wire(), sender)

    def _answer(self, query: dns.message.Message) -> dns.message.Message | None:
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        self.asked.append(name)
        known = self._known(name)
        if known == SILENT:
            return None
        if known is None or known == BROKEN:
            answer.set_rcode(dns.rcode.SERVFAIL if known == BROKEN else dns.rcode.NXDOMAIN)
            return answer
        self._add(answer, name, dns.rdatatype.to_text(query.question[0].rdtype))
        return answer

    def _known(self, name: str) -> list[tuple[str, str]] | str | None:
        return self.records.get(name) or self.records.get("*." + name.partition(".")[2])

    def _add(self, answer: dns.message.Message, name: str, wanted: str) -> None:
        for kind, value in self._known(name) or ():
            if kind in (wanted, "CNAME"):
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, value))
            if kind == "CNAME":
                self._add(answer, value.rstrip("."), wanted)
