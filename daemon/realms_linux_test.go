package daemon_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

const automicPolicy = `{"model":"automic","users":{
	"JDOE/DEPT":{"groups":["OPS"],"rows":[{"grp":"1","type":"JOBS","name":"PAY.*","host":"UX_DB01","login":"LOGIN.PAYROLL","rights":"RXP"},
		{"grp":"1","type":"LOGIN","name":"LOGIN.PAYROLL","rights":"X"}]},
	"READER/DEPT":{"rows":[{"grp":"1","type":"JOBS","name":"*","rights":"P"}]},
	"ENDER/DEPT":{"rows":[{"grp":"1","type":"JOBS","name":"PAY.*","host":"UX_DB01","login":"LOGIN.PAYROLL","rights":"C"}]}},
	"groups":{"OPS":{"rows":[{"grp":"1","type":"HOST","name":"UX_DB01","rights":"X"}]}}}`

const stonebranchPolicy = `{"model":"stonebranch","users":{
	"alice":{"permissions":[
		{"type":"Task","name":"PAY*","commands":["Launch"]},
		{"type":"Agent","name":"AGNT0001","business_services":{"criterion":"specific","services":["FIN"]},"operations":["Execute"]},
		{"type":"Credential","name":"SF*","business_services":{"criterion":"specific","services":["FIN"]},"operations":["Execute"]},
		{"type":"Task Instance","name":"PAY*","commands":["Cancel","Retrieve Output"]}]},
	"bob":{"permissions":[{"type":"Task","name":"*","commands":["Launch"]}]},
	"carol":{"roles":["ops_user_impersonate"]},
	"root":{"roles":["ops_admin"]}}}`

// threeRealms is a bed whose machine belongs to one realm of each model.
func threeRealms(t *testing.T, required bool) *testbed.Bed {
	t.Helper()
	b := testbed.New(t, testbed.Options{Edit: func(yaml string) string {
		yaml = strings.Replace(yaml, "realms:\n", "realms:\n  automic: {model: automic, agent: UX_DB01}\n  ub: {model: stonebranch, agent: AGNT0001, agent_services: [FIN]}\n", 1)
		yaml = strings.Replace(yaml, "realms: [opcon]", "realms: [opcon, automic, ub]", 1)
		if required {
			yaml = strings.Replace(yaml, "    may: [", "    subject_required: true\n    may: [", 1)
		}
		return yaml
	}})
	for realm, text := range map[string]string{"automic": automicPolicy, "ub": stonebranchPolicy} {
		var doc map[string]any
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		if err := b.Vault.PutPolicy(t.Context(), testbed.Scope, realm, doc); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.PutDocument("payroll", map[string]any{
		"username": b.Accounts.Payroll.Name, "kind": "password", "password": "pw-of-payroll-in-three-realms", "retrieve": true,
		"names":    map[string]string{"opcon": "users/payroll", "automic": "LOGIN.PAYROLL", "stonebranch": "SF_PAYROLL"},
		"services": map[string][]string{"stonebranch": {"FIN"}},
	}); err != nil {
		t.Fatal(err)
	}
	if s := synced(t, b); len(s.Faults) > 0 {
		t.Fatalf("faults: %+v", s.Faults)
	}
	return b
}

type m = map[string]any

func TestRealms(t *testing.T) {
	b := threeRealms(t, false)
	automic := func(user string, object m) m {
		return m{"realm": "automic", "subject": m{"user": user}, "object": object}
	}
	ub := func(subject, object m) m { return m{"realm": "ub", "subject": subject, "object": object} }
	task := m{"name": "PAY_NIGHTLY", "services": []string{}}

	for _, c := range []struct {
		name   string
		launch m
		status int
		code   string
	}{
		{"automic: a row for the job, one for the login", automic("JDOE/DEPT", m{"name": "PAY.RUN"}), 201, ""},
		{"automic: the realm's own name of the batch user", m{"realm": "automic", "subject": m{"user": "JDOE/DEPT"}, "object": m{"name": "PAY.RUN"}, "batch_user": "LOGIN.PAYROLL"}, 201, ""},
		{"automic: what the daemon knows, said the same way", automic("JDOE/DEPT", m{"name": "PAY.RUN", "host": "ux_db01", "login": "login.payroll"}), 201, ""},
		{"automic: no row for the job", automic("JDOE/DEPT", m{"name": "FIN.RUN"}), 403, wire.PolicyDenied},
		{"automic: an unknown user", automic("NOBODY/DEPT", m{"name": "PAY.RUN"}), 403, wire.PolicyDenied},
		{"automic: another host", automic("JDOE/DEPT", m{"name": "PAY.RUN", "host": "UX_DB02"}), 400, wire.RequestInvalid},
		{"automic: an empty host, which would match every filter", automic("JDOE/DEPT", m{"name": "PAY.RUN", "host": ""}), 400, wire.RequestInvalid},
		{"automic: another login", automic("JDOE/DEPT", m{"name": "PAY.RUN", "login": "LOGIN.ROOT"}), 400, wire.RequestInvalid},
		{"automic: an empty login", automic("JDOE/DEPT", m{"name": "PAY.RUN", "login": ""}), 400, wire.RequestInvalid},
		{"automic: no job's name", automic("JDOE/DEPT", m{}), 400, wire.RequestInvalid},
		{"automic: a member of another model", automic("JDOE/DEPT", m{"name": "PAY.RUN", "machine": "UX_DB01"}), 400, wire.RequestInvalid},

		{"stonebranch: task, agent, credential", ub(m{"user": "alice"}, m{"task": task}), 201, ""},
		{"stonebranch: what the daemon knows, said the same way", ub(m{"user": "alice"}, m{"task": task, "agent": m{"name": "AGNT0001", "services": []string{"FIN"}}, "credential": m{"name": "SF_PAYROLL"}}), 201, ""},
		{"stonebranch: no Execute on the credential", ub(m{"user": "bob"}, m{"task": task}), 403, wire.PolicyDenied},
		{"stonebranch: another agent", ub(m{"user": "alice"}, m{"task": task, "agent": m{"name": "AGNT0002"}}), 400, wire.RequestInvalid},
		{"stonebranch: the agent in other services", ub(m{"user": "alice"}, m{"task": task, "agent": m{"name": "AGNT0001", "services": []string{"HR"}}}), 400, wire.RequestInvalid},
		{"stonebranch: another credential", ub(m{"user": "alice"}, m{"task": task, "credential": m{"name": "SF_ROOT"}}), 400, wire.RequestInvalid},
		{"stonebranch: the credential in other services", ub(m{"user": "alice"}, m{"task": task, "credential": m{"name": "SF_PAYROLL", "services": []string{}}}), 400, wire.RequestInvalid},
		{"stonebranch: somebody who may, for alice", ub(m{"user": "alice", "by": "carol"}, m{"task": task}), 201, ""},
		{"stonebranch: somebody who may not, for alice", ub(m{"user": "alice", "by": "bob"}, m{"task": task}), 403, wire.PolicyDenied},
		{"stonebranch: an administrator, not named in the entry", ub(m{"user": "root"}, m{"task": task}), 403, wire.CallerForbidden},
		{"stonebranch: by an administrator, not named in the entry", ub(m{"user": "alice", "by": "root"}, m{"task": task}), 403, wire.CallerForbidden},

		{"opcon: by is stonebranch's", m{"realm": "opcon", "subject": m{"user": testbed.User, "by": "carol"}}, 400, wire.RequestInvalid},
		{"opcon: another machine", m{"object": m{"machine": "UX_DB01"}}, 400, wire.RequestInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(c.launch)), c.status, c.code)
		})
	}
	t.Run("acting for another, both names are written down", func(t *testing.T) {
		r := audited(t, b, map[string]string{"kind": "launch", "verdict": "allow", "realm": "ub"})
		records, err := b.Audit()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, r := range records {
			subject, _ := r["subject"].(map[string]any)
			found = found || r.Text("verdict") == "allow" && subject["user"] == "alice" && subject["by"] == "carol"
		}
		if !found {
			t.Errorf("no record has alice and carol; one of the realm is %v", r)
		}
	})
	t.Run("a retrieve asks the same question", func(t *testing.T) {
		retrieve := func(subject string) testbed.Answer {
			return call(t, b, b.Accounts.LSAM, "POST", "/v1/batch-users/payroll/retrieve", m{"realm": "automic", "subject": m{"user": subject}, "object": m{"name": "PAY.RUN"}})
		}
		if a := retrieve("JDOE/DEPT"); a.Status != 200 || string(a.Body) != "pw-of-payroll-in-three-realms" {
			t.Errorf("got %d, %d octets", a.Status, len(a.Body))
		}
		want(t, retrieve("READER/DEPT"), 403, wire.PolicyDenied)
	})
	t.Run("explain speaks the administrator's language", func(t *testing.T) {
		d := read[wire.Decision](t, call(t, b, testbed.Root, "POST", "/v1/authorize?explain=1", m{"realm": "automic", "subject": m{"user": "JDOE/DEPT"}, "object": m{"name": "FIN.RUN"}, "batch_user": "payroll"}))
		if d.Allowed || !strings.Contains(d.TraceText, "U00004506") || !strings.Contains(d.TraceText, "authorization group '1'") {
			t.Errorf("got %s", d.TraceText)
		}
	})
}

func TestSubjectRequired(t *testing.T) {
	b := threeRealms(t, true)
	lsam := b.Accounts.LSAM
	start := func(id, realm, user string, object m) {
		t.Helper()
		a := call(t, b, lsam, "POST", "/v1/jobs", body(m{"id": id, "realm": realm, "subject": m{"user": user}, "object": object,
			"command": []string{"/bin/sh", "-c", "echo words; exec sleep 300"}}))
		if a.Status != 201 {
			t.Fatalf("%s: %d %s", id, a.Status, a.Body)
		}
	}
	start("a", "automic", "JDOE/DEPT", m{"name": "PAY.RUN"})
	start("s", "ub", "alice", m{"task": m{"name": "PAY_NIGHTLY"}})
	start("o", "opcon", testbed.User, m{})

	signal := func(id string, body m) testbed.Answer {
		t.Helper()
		body["signal"] = "TERM"
		return call(t, b, lsam, "POST", "/v1/jobs/"+id+"/signal", body)
	}
	output := func(id, subject, object string) testbed.Answer {
		t.Helper()
		q := url.Values{}
		if subject != "" {
			q.Set("subject", subject)
		}
		if object != "" {
			q.Set("object", object)
		}
		return call(t, b, lsam, "GET", "/v1/jobs/"+id+"/output/stdout?"+q.Encode(), nil)
	}
	instance := m{"name": "PAY_NIGHTLY", "services": []string{}}
	for _, c := range []struct {
		name   string
		answer testbed.Answer
		status int
		code   string
	}{
		{"output for nobody", output("a", "", ""), 400, wire.RequestInvalid},
		{"automic output needs P", output("a", `{"user":"JDOE/DEPT"}`, ""), 200, ""},
		{"automic output of a reader", output("a", `{"user":"READER/DEPT"}`, ""), 200, ""},
		{"automic output without P", output("a", `{"user":"ENDER/DEPT"}`, ""), 403, wire.PolicyDenied},
		{"automic output of another object", output("a", `{"user":"ENDER/DEPT"}`, `{"name":"OTHER"}`), 400, wire.RequestInvalid},
		{"stonebranch output", output("s", `{"user":"alice"}`, `{"name":"PAY_NIGHTLY","services":[]}`), 200, ""},
		{"stonebranch output without the command", output("s", `{"user":"bob"}`, `{"name":"PAY_NIGHTLY","services":[]}`), 403, wire.PolicyDenied},
		{"opcon output by the grant", output("o", `{"user":"jdoe"}`, ""), 200, ""},
		{"opcon output without it", output("o", `{"user":"mallory"}`, ""), 403, wire.PolicyDenied},
		{"a subject that is not JSON", output("o", `jdoe`, ""), 400, wire.RequestInvalid},

		{"a signal for nobody", signal("a", m{}), 400, wire.RequestInvalid},
		{"automic signal needs C", signal("a", m{"subject": m{"user": "READER/DEPT"}}), 403, wire.PolicyDenied},
		{"stonebranch signal without the command", signal("s", m{"subject": m{"user": "bob"}, "object": instance}), 403, wire.PolicyDenied},
		{"opcon signal without the grant", signal("o", m{"subject": m{"user": "mallory"}}), 403, wire.PolicyDenied},
		{"a signal that does not exist", call(t, b, lsam, "POST", "/v1/jobs/o/signal", m{"signal": "FLY", "subject": m{"user": "jdoe"}}), 400, wire.RequestInvalid},
		{"a signal to a job that does not exist", signal("x", m{"subject": m{"user": "jdoe"}}), 404, wire.JobUnknown},
		{"a stranger's signal", call(t, b, b.Accounts.Stranger, "POST", "/v1/jobs/o/signal", m{"signal": "TERM"}), 403, wire.CallerUnknown},

		{"automic signal with C", signal("a", m{"subject": m{"user": "ENDER/DEPT"}}), 200, ""},
		{"stonebranch signal with the command", signal("s", m{"subject": m{"user": "alice"}, "object": instance}), 200, ""},
		{"an operator's signal, for nobody", call(t, b, testbed.Root, "POST", "/v1/jobs/o/signal", m{"signal": "TERM"}), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) { want(t, c.answer, c.status, c.code) })
	}
	for _, id := range []string{"a", "s", "o"} {
		if job := ended(t, b, id); job.Signal != "TERM" || job.State != wire.Exited {
			t.Errorf("job %s: %+v, want ended by TERM", id, job)
		}
	}
	audited(t, b, map[string]string{"kind": "signal", "verdict": "deny", "realm": "automic", "code": wire.PolicyDenied})
	audited(t, b, map[string]string{"kind": "signal", "verdict": "allow", "realm": "ub"})
}

func TestSignalReachesTheWholeJob(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	launch := func(script string) string {
		t.Helper()
		job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(m{"command": []string{"/bin/sh", "-c", script}})))
		return job.ID
	}
	t.Run("children too", func(t *testing.T) {
		id := launch(`setsid sleep 300 & wait`)
		r := b.CLI(b.Accounts.LSAM, "signal", id, "KILL")
		if job := ended(t, b, id); r.Code != 0 || job.Signal != "KILL" {
			t.Errorf("exit %d %s, job %+v", r.Code, r.Err, job)
		}
	})
	t.Run("who ignores TERM is killed after the grace", func(t *testing.T) {
		id := launch(`trap "" TERM; echo ready; while :; do sleep 1; done`)
		for deadline := time.Now().Add(10 * time.Second); output(t, b, id, "stdout") == "" && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs/"+id+"/signal", m{"signal": "TERM", "grace": "300ms"})
		if job := ended(t, b, id); job.Signal != "KILL" {
			t.Errorf("%+v", job)
		}
	})
	t.Run("a job that has ended is left alone", func(t *testing.T) {
		id := launch(`exit 3`)
		ended(t, b, id)
		a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs/"+id+"/signal", m{"signal": "TERM"})
		if job := read[wire.Job](t, a); job.ExitCode == nil || *job.ExitCode != 3 {
			t.Errorf("%+v", job)
		}
	})
}
