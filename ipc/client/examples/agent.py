#!/usr/bin/env python3
"""An agent in Python's standard library: agent.py SOCKET REALM SUBJECT BATCH_USER ID COMMAND...

The last line it writes is the job as JSON; the exit code is 0 when the job's was."""
import http.client
import json
import os
import socket
import stat
import sys
import time
from urllib.parse import quote


class Refused(Exception):
    """The service answered no; code is stable, the text is for people."""

    def __init__(self, problem):
        super().__init__(problem.get("detail") or problem["title"])
        self.code = problem["code"]


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("batchwarden", timeout=90)
        self.path = path

    def connect(self):
        # Whoever else could have put the socket there could read what is sent, and answer.
        for path in (self.path, os.path.dirname(self.path)):
            at = os.stat(path)
            if at.st_uid != 0 or stat.S_ISDIR(at.st_mode) and at.st_mode & 0o022:
                raise PermissionError(f"{path} is not root's alone")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Service:
    def __init__(self, path):
        self.connection = Connection(path)

    def call(self, method, path, body=None):
        """Waits for a service that is being restarted. A launch may be repeated because it has an id."""
        for attempt in range(60):
            try:
                text = None if body is None else json.dumps(body)
                self.connection.request(method, path, text, {"Content-Type": "application/json"})
                response = self.connection.getresponse()
                answer = json.loads(response.read())
            except (ConnectionError, FileNotFoundError, http.client.HTTPException, TimeoutError):
                self.connection.close()
                time.sleep(min(0.1 * 2**attempt, 2))
                continue
            if response.status in (429, 503):
                time.sleep(float(response.getheader("Retry-After", "1")))
                continue
            if response.status >= 400:
                raise Refused(answer)
            return answer
        raise ConnectionError("the service does not answer")


def main(path, realm, subject, batch_user, job_id, *command):
    service = Service(path)
    who = {"realm": realm, "subject": {"user": subject}, "batch_user": batch_user}
    print(json.dumps(service.call("GET", "/v1/whoami")))
    decision = service.call("POST", "/v1/authorize", who)
    print(json.dumps(decision))
    if not decision["allowed"]:
        return 1
    # The same id and body are the same job, however often they are sent: also by an agent that was restarted.
    job = service.call("POST", "/v1/jobs", {"id": job_id, **who, "command": list(command)})
    while job["state"] in ("starting", "running"):
        job = service.call("GET", f"/v1/jobs/{quote(job_id)}?wait=30s")
    print(json.dumps(job))
    return 0 if job.get("exit_code") == 0 else 1


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Refused as no:
        sys.exit(f"{no.code}: {no}")
