package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// narrow gives the LSAM an entry with every bound, and the stranger one that
// may only ask.
func narrow(a *testbed.Accounts, yaml string) string {
	head, _, _ := strings.Cut(yaml, "clients:")
	_, tail, _ := strings.Cut(yaml, "operators:")
	return head + fmt.Sprintf(`clients:
  - name: narrow
    match: {user: %s}
    realms: [opcon]
    may: [authorize, launch, retrieve]
    subjects: {users: ["j*"], roles: [payroll-ops], privileged: [jroot]}
    batch_users: ["pay*"]
  - name: asker
    match: {group: %s}
    realms: [other]
    may: [authorize]
    batch_users: ["*"]
`, a.LSAM.Name, a.Stranger.Name) + "operators:" + tail
}

func TestCallers(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	reconfigure(t, b, func(yaml string) string {
		yaml = strings.Replace(yaml, "realms:\n", "realms:\n  other: {model: opcon, agent: OTHER}\n", 1)
		return narrow(b.Accounts, yaml)
	})
	doc := testbed.Policy()
	users := doc["users"].(map[string]any)
	users["jadmin"] = map[string]any{"roles": []string{"Role_ocadm"}}
	users["jroot"] = map[string]any{"roles": []string{"Role_ocadm"}}
	putPolicy(t, b, doc)

	lsam, asker := b.Accounts.LSAM, b.Accounts.Stranger
	launch := func(change map[string]any) testbed.Answer {
		t.Helper()
		return call(t, b, lsam, "POST", "/v1/jobs", body(change))
	}
	subject := func(s map[string]any) map[string]any { return map[string]any{"subject": s} }

	for _, c := range []struct {
		name   string
		answer testbed.Answer
		status int
		code   string
	}{
		{"its subject, its batch user", launch(nil), 201, ""},
		{"a subject outside its globs", launch(subject(map[string]any{"user": "mallory"})), 403, wire.CallerForbidden},
		{"a subject that acts through another outside its globs", launch(subject(map[string]any{"user": "jdoe", "by": "mallory"})), 403, wire.CallerForbidden},
		{"a batch user outside its globs", launch(map[string]any{"batch_user": "reports"}), 403, wire.CallerForbidden},
		{"the same by the realm's name", launch(map[string]any{"batch_user": "users/reports"}), 403, wire.CallerForbidden},
		{"a batch user that does not exist, inside its globs", launch(map[string]any{"batch_user": "payments"}), 404, wire.BatchUserUnknown},
		{"one that does not exist, outside: no oracle", launch(map[string]any{"batch_user": "nobody"}), 403, wire.CallerForbidden},
		{"a realm that it does not have", launch(map[string]any{"realm": "other"}), 403, wire.CallerForbidden},
		{"a realm that does not exist", launch(map[string]any{"realm": "atlantis"}), 400, wire.RealmUnknown},
		{"a role that its entry lists", launch(subject(map[string]any{"user": "junknown", "roles": []string{"payroll-ops"}})), 201, ""},
		{"a role that it does not list", launch(subject(map[string]any{"user": "jdoe", "roles": []string{"dba"}})), 403, wire.CallerForbidden},
		{"Role_ocadm by saying so", launch(subject(map[string]any{"roles": []string{"Role_ocadm"}})), 403, wire.CallerForbidden},
		{"Role_ocadm by saying so, with a user", launch(subject(map[string]any{"user": "jdoe", "roles": []string{"Role_ocadm"}})), 403, wire.CallerForbidden},
		{"a user whom the document makes an administrator", launch(subject(map[string]any{"user": "jadmin"})), 403, wire.CallerForbidden},
		{"a subject that the policy does not know", launch(subject(map[string]any{"user": "junknown"})), 403, wire.PolicyDenied},
		{"no subject", launch(subject(map[string]any{})), 400, wire.RequestInvalid},
		{"a machine that is not this one", launch(map[string]any{"object": map[string]any{"machine": "elsewhere"}}), 400, wire.RequestInvalid},
		{"another batch user in the object", launch(map[string]any{"object": map[string]any{"batch_user": "users/reports"}}), 400, wire.RequestInvalid},
		{"another platform", launch(map[string]any{"object": map[string]any{"platform": "windows"}}), 400, wire.RequestInvalid},
		{"what its may does not list", call(t, b, asker, "POST", "/v1/jobs", body(map[string]any{"realm": "other"})), 403, wire.CallerForbidden},
		{"an explanation that it may not have", call(t, b, lsam, "POST", "/v1/authorize?explain=1", question("jdoe")), 403, wire.CallerForbidden},
		{"an operator launches", call(t, b, testbed.Root, "POST", "/v1/jobs", body(nil)), 403, wire.CallerForbidden},
		{"an operator retrieves", call(t, b, testbed.Root, "POST", "/v1/batch-users/payroll/retrieve", retrieveBody()), 403, wire.CallerForbidden},
		{"an operator asks without wanting it explained", call(t, b, testbed.Root, "POST", "/v1/authorize", question("jdoe")), 403, wire.CallerForbidden},
		{"a client syncs", call(t, b, lsam, "POST", "/v1/sync", nil), 403, wire.CallerForbidden},
	} {
		t.Run(c.name, func(t *testing.T) { want(t, c.answer, c.status, c.code) })
	}
	t.Run("an entry may name an administrator exactly", func(t *testing.T) {
		want(t, launch(subject(map[string]any{"user": "jroot"})), 201, "")
		want(t, launch(subject(map[string]any{"user": "jroot", "roles": []string{"Role_ocadm"}})), 403, wire.CallerForbidden)
	})
	t.Run("a client sees its own batch users, an operator all", func(t *testing.T) {
		mine := read[wire.BatchUsers](t, call(t, b, lsam, "GET", "/v1/batch-users", nil))
		if len(mine.BatchUsers) != 1 || mine.BatchUsers[0].Name != "payroll" {
			t.Errorf("the client sees %+v", mine)
		}
		want(t, call(t, b, lsam, "GET", "/v1/batch-users/reports", nil), 404, wire.BatchUserUnknown)
		if all := batchUsers(t, b); len(all) != 2 {
			t.Errorf("the operator sees %+v", all)
		}
	})
	t.Run("an operator has any subject explained", func(t *testing.T) {
		d := read[wire.Decision](t, call(t, b, testbed.Root, "POST", "/v1/authorize?explain=1", question("mallory")))
		if d.Allowed || d.Code != wire.PolicyDenied || d.Rule == "" || d.TraceText == "" {
			t.Errorf("got %+v", d)
		}
	})
	t.Run("a client learns yes or no, not why", func(t *testing.T) {
		d := read[wire.Decision](t, call(t, b, lsam, "POST", "/v1/authorize", question("jdoe")))
		if !d.Allowed || d.Reason != "" || d.Rule != "" || len(d.Trace) > 0 || d.DecisionID == "" {
			t.Errorf("got %+v", d)
		}
		audited(t, b, map[string]string{"kind": "authorize", "decision_id": d.DecisionID, "verdict": "allow"})
	})
	t.Run("a refused caller is audited as the kernel saw him", func(t *testing.T) {
		r := audited(t, b, map[string]string{"kind": "launch", "verdict": "deny", "code": wire.CallerForbidden, "batch_user": "reports"})
		if peer, _ := r["peer"].(map[string]any); peer["uid"] != float64(lsam.UID) {
			t.Errorf("record %v, want uid %d", r, lsam.UID)
		}
	})
}

// question is a launch to be judged and not started.
func question(user string) map[string]any {
	return map[string]any{"realm": "opcon", "subject": map[string]any{"user": user}, "batch_user": "payroll"}
}

func retrieveBody() map[string]any {
	return map[string]any{"realm": "opcon", "subject": map[string]any{"user": testbed.User}}
}

// putPolicy replaces the realm's document and has it synced.
func putPolicy(t *testing.T, b *testbed.Bed, doc map[string]any) {
	t.Helper()
	if err := b.Vault.PutPolicy(t.Context(), testbed.Scope, testbed.Realm, doc); err != nil {
		t.Fatal(err)
	}
	if s := synced(t, b); len(s.Faults) > 0 {
		t.Fatalf("policy refused: %+v", s.Faults)
	}
}

// grant lets jdoe use these logins too.
func grant(t *testing.T, b *testbed.Bed, logins ...string) {
	t.Helper()
	doc := testbed.Policy()
	role := doc["roles"].(map[string]any)["payroll-ops"].(map[string]any)
	lists := role["batch_users"].(map[string]any)
	lists["unix"] = append(lists["unix"].([]string), logins...)
	putPolicy(t, b, doc)
}

func TestStranger(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	stranger := b.Accounts.Stranger
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"GET", "/v1/status", nil},
		{"POST", "/v1/authorize", question("jdoe")},
		{"POST", "/v1/authorize?explain=1", question("jdoe")},
		{"GET", "/v1/batch-users", nil},
		{"GET", "/v1/batch-users/payroll", nil},
		{"POST", "/v1/batch-users/payroll/retrieve", retrieveBody()},
		{"POST", "/v1/jobs", body(nil)},
		{"GET", "/v1/jobs", nil},
		{"GET", "/v1/jobs/x", nil},
		{"GET", "/v1/jobs/x/output/stdout", nil},
		{"POST", "/v1/sync", nil},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			want(t, call(t, b, stranger, c.method, c.path, c.body), 403, wire.CallerUnknown)
		})
	}
	t.Run("health and whoami are for everybody", func(t *testing.T) {
		if a := call(t, b, stranger, "GET", "/v1/health", nil); a.Status != 200 {
			t.Errorf("health: %d %s", a.Status, a.Body)
		}
		w := read[wire.Whoami](t, call(t, b, stranger, "GET", "/v1/whoami", nil))
		if w.Client != "" || w.Operator || w.Reason == "" || w.Peer.UID != stranger.UID || w.Peer.User != stranger.Name {
			t.Errorf("got %+v", w)
		}
	})
}

func TestBadRequests(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	post := func(path, text string) testbed.Answer { return call(t, b, b.Accounts.LSAM, "POST", path, text) }
	for _, c := range []struct {
		name   string
		answer testbed.Answer
		status int
		code   string
		field  string
	}{
		{"an unknown member", post("/v1/jobs", `{"realm":"opcon","batchuser":"payroll"}`), 400, wire.RequestInvalid, "batchuser"},
		{"a wrong type", post("/v1/jobs", `{"realm":"opcon","subject":{"user":7}}`), 400, wire.RequestInvalid, "subject.user"},
		{"not JSON", post("/v1/jobs", `realm=opcon`), 400, wire.RequestInvalid, ""},
		{"half a JSON", post("/v1/jobs", `{"realm":"op`), 400, wire.RequestInvalid, ""},
		{"two objects", post("/v1/authorize", `{} {}`), 400, wire.RequestInvalid, ""},
		{"no body", post("/v1/jobs", ``), 400, wire.RequestInvalid, ""},
		{"no command", post("/v1/jobs", `{"realm":"opcon","subject":{"user":"jdoe"},"batch_user":"payroll"}`), 400, wire.RequestInvalid, "command"},
		{"an id with a slash", post("/v1/jobs", `{"id":"../x","realm":"opcon","subject":{"user":"jdoe"},"batch_user":"payroll","command":["/bin/true"]}`), 400, wire.RequestInvalid, "id"},
		{"a relative directory", post("/v1/jobs", `{"realm":"opcon","subject":{"user":"jdoe"},"batch_user":"payroll","command":["/bin/true"],"dir":"tmp"}`), 400, wire.RequestInvalid, "dir"},
		{"an unknown member of the object", post("/v1/authorize", `{"realm":"opcon","subject":{"user":"jdoe"},"batch_user":"payroll","object":{"colour":"red"}}`), 400, wire.RequestInvalid, "object.colour"},
		{"a member that another model has", post("/v1/authorize", `{"realm":"opcon","subject":{"user":"jdoe"},"batch_user":"payroll","object":{"folder":"X"}}`), 400, wire.RequestInvalid, ""},
		{"an unknown action", post("/v1/authorize", `{"realm":"opcon","subject":{"user":"jdoe"},"action":"fly"}`), 400, wire.RequestInvalid, ""},
		{"a body over the limit", post("/v1/authorize", `{"realm":"`+strings.Repeat("x", wire.MaxSmall)+`"}`), 413, wire.RequestTooLarge, ""},
		{"a launch over the limit", post("/v1/jobs", `{"realm":"`+strings.Repeat("x", wire.MaxBody)+`"}`), 413, wire.RequestTooLarge, ""},
		{"a reload by a client", call(t, b, b.Accounts.LSAM, "POST", "/v1/reload", `{}`), 403, wire.CallerForbidden, ""},
		{"an unknown path", post("/v1/nothing", `{}`), 404, wire.RequestNotFound, ""},
		{"an unknown method", call(t, b, b.Accounts.LSAM, "PATCH", "/v1/jobs", `{}`), 404, wire.RequestNotFound, ""},
		{"a wait that is none", call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/x?wait=soon", nil), 400, wire.RequestInvalid, "wait"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want(t, c.answer, c.status, c.code)
			var p wire.Problem
			if err := json.Unmarshal(c.answer.Body, &p); err != nil {
				t.Fatalf("not a problem document: %q", c.answer.Body)
			}
			if c.field != "" && p.Field != c.field {
				t.Errorf("field %q (%s), want %q", p.Field, p.Detail, c.field)
			}
			if got := c.answer.Header.Get("Content-Type"); got != wire.ContentType {
				t.Errorf("Content-Type %q", got)
			}
		})
	}
	t.Run("a silent client holds nobody up", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		silent := make([]net.Conn, 0, 50)
		for range 50 {
			conn, err := b.Dial(ctx, b.Accounts.Stranger)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")); err != nil {
				t.Fatal(err)
			}
			silent = append(silent, conn)
		}
		begun := time.Now()
		if a := call(t, b, b.Accounts.LSAM, "GET", "/v1/health", nil); a.Status != 200 || time.Since(begun) > 2*time.Second {
			t.Errorf("health: %d after %s", a.Status, time.Since(begun))
		}
		answer := make([]byte, 1024)
		_ = silent[0].SetReadDeadline(time.Now().Add(25 * time.Second)) // a connection of ours that is open
		n, _ := silent[0].Read(answer)                                  // the answer, or nothing at the end
		if !bytes.Contains(answer[:n], []byte(" 4")) && n > 0 {
			t.Errorf("a silent request was answered %q", answer[:n])
		}
		if time.Since(begun) > 24*time.Second {
			t.Error("a silent connection was not closed in time")
		}
	})
	if text, err := os.ReadFile(b.AuditFile()); err != nil || len(text) == 0 {
		t.Errorf("audit: %v", err)
	}
}
