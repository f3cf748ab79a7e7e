package daemon_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// explained is what explain prints as JSON.
type explained struct {
	wire.DryRun
	Remedy struct{ Who, What, Where, Command string }
}

// explain asks as the account about a launch of User's, which the flags and the words after -- make another.
func explain(t *testing.T, b *testbed.Bed, as testbed.Account, flags string, command ...string) explained {
	t.Helper()
	args := append([]string{"explain", "--json"}, strings.Fields(flags)...)
	for flag, usual := range map[string]string{"--realm": testbed.Realm, "--subject": testbed.User, "--as": "payroll"} {
		if !slices.Contains(args, flag) {
			args = append(args, flag, usual)
		}
	}
	if len(command) == 0 {
		command = []string{"/bin/true"}
	}
	r := b.CLI(as, append(append(args, "--"), command...)...)
	var x explained
	if err := json.Unmarshal([]byte(r.Out), &x); err != nil || r.Code != map[bool]int{true: 0, false: 1}[x.Start] {
		t.Fatalf("explain %s: exit %d, %s%s (%v)", flags, r.Code, r.Out, r.Err, err)
	}
	return x
}

// TestExplainLaunch makes each refusal for real, and holds what is to be changed against it.
func TestExplainLaunch(t *testing.T) {
	b := testbed.New(t, testbed.Options{Edit: func(yaml string) string {
		entry := func(name, rest string) string {
			return "  - {name: " + name + ", match: {user: bw-stranger}, " + rest + "}\n"
		}
		yaml = strings.Replace(yaml, "  opcon: {model: opcon, agent: DB01_LSAM}\n",
			"  opcon: {model: opcon, agent: DB01_LSAM}\n  empty: {model: opcon, agent: X}\n", 1)
		return strings.Replace(yaml, "operators:", entry("narrow", `realms: [opcon], may: [authorize, explain, launch], subjects: {users: [jdoe]}, batch_users: [payroll]`)+
			entry("asker", `realms: [opcon, empty], may: [authorize, explain], subjects: {users: ["*"]}, batch_users: ["*"]`)+
			`  - {name: lost, match: {user: nobody-at-all}, realms: [opcon], may: [launch], batch_users: ["*"]}`+"\n"+
			`  - {name: grouped, match: {group: bw-reports}, realms: [opcon], may: [launch], subjects: {users: ["*"]}, batch_users: ["*"]}`+"\n"+
			"operators:", 1)
	}})
	lsam, narrow := b.Accounts.LSAM, b.Accounts.Stranger
	account := b.Accounts.Payroll.Name
	for name, document := range map[string]map[string]any{
		"ungranted": {"username": account}, "held": {"username": account, "launch": false},
		"over":  {"username": account, "expires": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)},
		"ghost": {"username": "no-such-account"}, "superuser": {"username": "root"},
		"grouped": {"username": account, "group": "no-such-group"}, "foreign": {"username": account, "platform": "windows"},
		"short": {"username": account, "max_stale": "1ms"},
	} {
		document["kind"], document["names"] = "none", map[string]string{"opcon": "users/" + name}
		if err := b.PutDocument(name, document); err != nil {
			t.Fatal(err)
		}
	}
	grant(t, b, "users/held", "users/over", "users/ghost", "users/superuser", "users/grouped", "users/short")

	main := b.ConfigFile()
	limits := b.LimitsFile()
	line := func(file, begins string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range lines(string(text)) {
			if strings.HasPrefix(strings.TrimSpace(l), begins) {
				return fmt.Sprintf("%s:%d", file, i+1)
			}
		}
		t.Fatalf("no line %q in %s", begins, file)
		return ""
	}
	run(t, b, map[string]any{"id": "taken", "command": []string{"/bin/false"}})
	for _, c := range []struct {
		name, flags string
		command     []string
		limits      string // in limits.yaml, "" for what is usual
		step, code  string
		what        string // in what to do
		where       string
		does        string // in the command
	}{
		{name: "realm unknown", flags: "--client lsam --realm atlantis", step: "realm", code: wire.RealmUnknown, what: `realm "atlantis" under realms`, where: main},
		{name: "realm not the client's", flags: "--client lsam --realm empty", step: "realm", code: wire.CallerForbidden, what: `add empty to realms of client entry "lsam"`, where: line(main, "- name: lsam")},
		{name: "no document", flags: "--client asker --realm empty", step: "caller", code: wire.CallerForbidden, what: `add launch to may`, where: line(main, "- {name: asker")},
		{name: "a client without an account", flags: "--client lost", step: "caller", code: wire.CallerUnknown, what: "an account that exists into match", where: line(main, "- {name: lost")},
		{name: "no client named", step: "caller", code: wire.CallerForbidden, what: "whose launch", does: "--client"},
		{name: "a request that is none", flags: "--client lsam --dir home", step: "request", code: wire.RequestInvalid, what: "dir must be an absolute path"},
		{name: "an id that is taken", flags: "--client lsam --id taken", step: "id", code: wire.IDConflict, what: "another id"},
		{name: "a subject that is not the client's", flags: "--client narrow --subject mallory", step: "subject", code: wire.CallerForbidden, what: `add "mallory" to subjects.users of client entry "narrow"`, where: line(main, "- {name: narrow")},
		{name: "a role that is not the client's", flags: "--client narrow --subject-role payroll-ops", step: "subject", code: wire.CallerForbidden, what: `add "payroll-ops" to subjects.roles`},
		{name: "an administrator", flags: "--client lsam --subject boss", step: "subject", code: wire.CallerForbidden, what: `add "boss" to subjects.privileged`},
		{name: "a batch user that is not the client's", flags: "--client narrow --as reports", step: "batch_user", code: wire.CallerForbidden, what: `add "reports" to batch_users`},
		{name: "no such batch user", flags: "--client lsam --as nobody", step: "batch_user", code: wire.BatchUserUnknown, what: `make batch user "nobody"`, does: "admin batch-user put nobody --machine db01 --username"},
		{name: "not for launching", flags: "--client lsam --as held", step: "batch_user", code: wire.BatchUserNotAllowed, what: "let the batch user be launched", does: "admin batch-user put held --machine db01 --launch"},
		{name: "another platform's", flags: "--client lsam --as foreign", step: "batch_user", code: wire.BatchUserNotAllowed, what: "another platform's", does: "--os-platform unix"},
		{name: "expired", flags: "--client lsam --as over", step: "batch_user", code: wire.CredentialExpired, what: "a later end", does: "admin batch-user put over --machine db01 --expires"},
		{name: "stale", flags: "--client lsam --as short", step: "batch_user", code: wire.CredentialStale, what: "reach Vault", does: "batchwarden sync"},
		{name: "a role is missing", flags: "--client lsam --subject mallory", step: "policy", code: wire.PolicyDenied, what: `adding "payroll-ops" to users.mallory.roles`, where: "in Vault: machines/db01/policies/opcon", does: "admin policy get opcon --machine db01"},
		{name: "the role has not the batch user", flags: "--client lsam --as ungranted", step: "policy", code: wire.PolicyDenied, what: `adding "users/ungranted"`, does: "batchwarden admin grant --realm opcon --batch-user ungranted --role payroll-ops"},
		{name: "no account", flags: "--client lsam --as ghost", step: "account", code: wire.AccountMissing, what: "make account no-such-account", does: "useradd --create-home no-such-account"},
		{name: "not in the group", flags: "--client lsam --as grouped", step: "account", code: wire.AccountMissing, what: "group no-such-group", does: "usermod -aG no-such-group " + account},
		{name: "root", flags: "--client lsam --as superuser", step: "limits", code: wire.LimitsRefused, what: "allow_root: true", where: limits},
		{name: "a client that is no requester", flags: "--client narrow", step: "limits", code: wire.LimitsRefused, what: "add the account that asks, bw-stranger, to requesters", where: limits + ":2"},
		{name: "a command that is not allowed", flags: "--client lsam", limits: "allow_commands: [{path: /bin/false}]", step: "limits", code: wire.LimitsRefused, what: "add {path: /usr/bin/true} to allow_commands", where: limits + ":3"},
		{name: "a variable", flags: "--client lsam --env LD_PRELOAD=x", step: "limits", code: wire.LimitsRefused, what: "add LD_PRELOAD to allow_env"},
		{name: "an account that is denied", flags: "--client lsam", limits: "deny_users: [" + account + "]", step: "limits", code: wire.LimitsRefused, what: "take " + account + " from deny_users", where: limits + ":3"},
		{name: "an account that is not allowed", flags: "--client lsam", limits: "allow_users: [bw-reports]", step: "limits", code: wire.LimitsRefused, what: "add " + account + " to allow_users", where: limits + ":3"},
		{name: "a low uid", flags: "--client lsam", limits: "min_uid: 60000", step: "limits", code: wire.LimitsRefused, what: "lower min_uid", where: limits + ":3"},
		{name: "a group that is denied", flags: "--client lsam", limits: "deny_groups: [" + account + "]", step: "limits", code: wire.LimitsRefused, what: "out of deny_groups"},
		{name: "more than there is", flags: "--client lsam --limit nofile=600", limits: "max: {nofile: 500}", step: "limits", code: wire.LimitsRefused, what: "raise max.nofile", where: limits + ":3"},
		{name: "no such directory", flags: "--client lsam --dir /no/such", step: "dir", code: "chdir.failed", what: "a directory that is there"},
		{name: "no such command", flags: "--client lsam", command: []string{"/no/such"}, step: "command", code: "exec.not_found", what: "/no/such"},
		{name: "no program", flags: "--client lsam", command: []string{"/etc/passwd"}, step: "command", code: "exec.forbidden", what: "may execute"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ownLimits(t, b, c.limits)
			if c.name == "an administrator" {
				doc := testbed.Policy()
				doc["users"].(map[string]any)["boss"] = map[string]any{"roles": []string{"Role_ocadm"}}
				putPolicy(t, b, doc)
				defer grant(t, b, "users/held", "users/over", "users/ghost", "users/superuser", "users/grouped", "users/short")
			}
			x := explain(t, b, testbed.Root, c.flags, c.command...)
			i := slices.IndexFunc(x.Checks, func(c wire.Check) bool { return !c.OK })
			if x.Start || i < 0 || x.Checks[i].Step != c.step || x.Checks[i].Code != c.code || x.Code != c.code {
				t.Errorf("got %s at %+v, want %s at %s", x.Code, x.Checks, c.code, c.step)
			}
			r := &x.Remedy
			if r.Who == "" || !strings.Contains(r.What, c.what) || c.where != "" && r.Where != c.where || !strings.Contains(r.Command, c.does) {
				t.Errorf("got %+v, want %q, at %q, by %q", r, c.what, c.where, c.does)
			}
		})
	}
	ownLimits(t, b, "")

	t.Run("what is told to do, helps", func(t *testing.T) {
		x := explain(t, b, testbed.Root, "--client lsam --as ungranted")
		words := strings.Fields(x.Remedy.Command)
		if len(words) < 3 || words[1] != "admin" {
			t.Fatalf("%+v", x.Remedy)
		}
		if r := b.Admin(nil, words[2:]...); r.Code != 0 {
			t.Fatalf("%v: %s%s", words, r.Out, r.Err)
		}
		synced(t, b)
		if x := explain(t, b, testbed.Root, "--client lsam --as ungranted"); !x.Start {
			t.Errorf("after %v: %+v", words, x.Checks)
		}
		if r := b.CLI(testbed.Root, "suspend"); r.Code != 0 {
			t.Fatal(r.Err)
		}
		x = explain(t, b, testbed.Root, "--client lsam")
		if x.Code != wire.MachineSuspended || x.Remedy.Command != "batchwarden resume" {
			t.Errorf("suspended: %+v", x)
		}
		if r := b.CLI(testbed.Root, "resume"); r.Code != 0 {
			t.Fatal(r.Err)
		}
	})
	t.Run("all that it rests on is there", func(t *testing.T) {
		x := explain(t, b, testbed.Root, "--client lsam --as users/payroll")
		e := x.Explained
		if !x.Start || e == nil || e.Client != "lsam" || !e.Supposed || !e.Operator || e.Account != lsam.Name || e.Peer.Exe == "" || e.Entry != line(main, "- name: lsam") {
			t.Fatalf("%+v %+v", x, e)
		}
		if e.BatchUser == nil || e.BatchUser.Name != "payroll" || e.BatchUser.Version != 1 || e.RealmName != "users/payroll" || e.Policy == nil || e.Policy.Version < 1 ||
			e.Decision == nil || e.Decision.Rule != "OC5" || len(e.Decision.Trace) == 0 {
			t.Errorf("%+v", e)
		}
		r := audited(t, b, map[string]string{"kind": "dry_run", "decision_id": x.DecisionID})
		if r.Text("for_client") != "lsam" || r.Text("client") != "" || r.Text("verdict") != "allow" {
			t.Errorf("audited as %v", r)
		}
		if jobs := read[wire.Jobs](t, call(t, b, testbed.Root, "GET", "/v1/jobs", nil)).Jobs; len(jobs) != 1 {
			t.Errorf("jobs: %+v", jobs)
		}
	})
	t.Run("an entry that names no user leaves the host's limits unseen", func(t *testing.T) {
		x := explain(t, b, testbed.Root, "--client grouped")
		last := x.Checks[len(x.Checks)-1]
		if !x.Start || last.Step != "launcher" || !last.Unseen || x.Explained.Account != "" {
			t.Errorf("got %+v", x)
		}
	})
	t.Run("a client learns of others no more than of itself", func(t *testing.T) {
		if x := explain(t, b, narrow, "--client lsam"); !x.Start || x.Explained.Client != "lsam" {
			t.Errorf("%+v", x)
		}
		for _, change := range []map[string]any{
			{"subject": map[string]any{"user": "mallory"}}, {"batch_user": "reports"}, {"batch_user": "users/reports"}, {"batch_user": "nobody"}, {"realm": "empty"},
		} {
			want(t, call(t, b, narrow, "POST", "/v1/jobs?dry_run=1&explain=1&client=lsam", body(change)), 403, wire.CallerForbidden)
		}
		// Whether the other has made the same request is none of its business.
		x := explain(t, b, narrow, "--client lsam --id taken")
		if slices.ContainsFunc(x.Checks, func(c wire.Check) bool { return c.Step == "id" }) {
			t.Errorf("%+v", x.Checks)
		}
	})
	t.Run("queries that mean something else are refused", func(t *testing.T) {
		for _, query := range []string{"explain=1", "client=lsam", "dry_run=1&client=lsam", "dry_run=1&explain=1&client=none"} {
			want(t, call(t, b, lsam, "POST", "/v1/jobs?"+query, body(nil)), 400, wire.RequestInvalid)
		}
	})
	if err := b.Launcher.Stop(); err != nil {
		t.Fatal(err)
	}
	x := explain(t, b, testbed.Root, "--client lsam")
	if x.Code != wire.LauncherUnavailable || x.Remedy.Command != "systemctl start batchwarden-launcher" {
		t.Errorf("without a launcher: %+v", x)
	}
}

// TestPreflight: what would fail tonight is named, by its line.
func TestPreflight(t *testing.T) {
	b := testbed.New(t, testbed.Options{Edit: func(yaml string) string { // the LSAM is asked to be patient
		return strings.Replace(yaml, "    may: [authorize, explain, launch, retrieve]\n", "    may: [authorize, explain, launch, retrieve]\n    rate: 4/s\n", 1)
	}})
	line := func(change map[string]any) string {
		text, err := json.Marshal(body(change))
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n"
	}
	run := func(as testbed.Account, file string, flags ...string) testbed.Result {
		return b.CommandIn(as, []byte(file), append([]string{"batchwarden", "preflight", "-"}, flags...)...)
	}
	good := line(nil)
	r := run(testbed.Root, good+"\n"+line(map[string]any{"client": "lsam", "id": "tonight-2"}))
	if r.Code != 0 || !strings.Contains(r.Out, "ok  line 3, job tonight-2: /bin/true as payroll for jdoe in opcon\n") || !strings.HasSuffix(r.Out, "All would be started: 2 jobs.\n") {
		t.Errorf("got %d %s%s", r.Code, r.Out, r.Err)
	}
	r = run(testbed.Root, good+line(map[string]any{"subject": map[string]any{"user": "mallory"}})+line(map[string]any{"command": []string{"/no/such"}})+
		line(map[string]any{"client": "none"})+line(map[string]any{"colour": "red"})+"{\n"+`{"realm":"opcon","realm":"opcon"}`+"\n"+good)
	for _, part := range []string{
		"ok  line 1: /bin/true", "NO  line 2: /bin/true as payroll for mallory in opcon: policy: policy.denied: ", `adding "payroll-ops" to users.mallory.roles`,
		"NO  line 3: /no/such as payroll for jdoe in opcon: command: exec.not_found: ", `NO  line 4: /bin/true as payroll for jdoe in opcon: request: request.invalid: there is no client entry "none"`,
		`NO  line 5: /bin/true as payroll for jdoe in opcon: request: request.invalid: "colour" is not`, "NO  line 6: request.invalid: the line is not JSON", "NO  line 7: ",
		"ok  line 8: ", "6 of 8 jobs would not be started: exec.not_found 1, policy.denied 1, request.invalid 4.",
	} {
		if !strings.Contains(r.Out, part) {
			t.Errorf("no %q in %s%s", part, r.Out, r.Err)
		}
	}
	if r.Code != 1 {
		t.Errorf("exit code %d, want 1", r.Code)
	}
	// Many at once, in their order, for a client that may not ask often.
	const many = 12
	r = run(b.Accounts.LSAM, strings.Repeat(good, many), "--json")
	if r.Code != 0 || strings.Count(r.Out, "\n") != many+1 || !strings.HasSuffix(r.Out, fmt.Sprintf(`{"summary":{"jobs":%d,"ok":%d}}`+"\n", many, many)) {
		t.Errorf("got %d %s%s", r.Code, r.Out, r.Err)
	}
	for i, l := range lines(r.Out)[:many] {
		if want := fmt.Sprintf(`{"line":%d,"ok":true`, i+1); !strings.HasPrefix(l, want) {
			t.Errorf("got %s, want %s", l, want)
		}
	}
	if r := run(b.Accounts.Stranger, good); r.Code != 77 || r.Out != "" {
		t.Errorf("a stranger: got %d %s%s", r.Code, r.Out, r.Err)
	}
	if r := b.CLI(testbed.Root, "preflight", b.Root+"/no-such-file"); r.Code != 64 {
		t.Errorf("no file: got %d %s%s", r.Code, r.Out, r.Err)
	}
	if jobs := read[wire.Jobs](t, call(t, b, testbed.Root, "GET", "/v1/jobs", nil)).Jobs; len(jobs) != 0 {
		t.Errorf("jobs: %+v", jobs)
	}
}

// TestDecisionTold: what was decided, and what became of it, out of the audit log.
func TestDecisionTold(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	tell := func(id string, flags ...string) testbed.Result {
		t.Helper()
		return b.CLI(testbed.Root, append([]string{"explain", "--decision", id, "--config", b.ConfigFile()}, flags...)...)
	}
	has := func(name string, r testbed.Result, code int, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if r.Code != code || !strings.Contains(r.Out+r.Err, part) {
				t.Errorf("%s: exit %d, want %d; no %q in %s%s", name, r.Code, code, part, r.Out, r.Err)
			}
		}
	}
	job, _ := run(t, b, map[string]any{"id": "once", "command": []string{"/bin/sh", "-c", "exit 3"}})
	audited(t, b, map[string]string{"kind": "job.ended", "decision_id": job.DecisionID})
	want(t, call(t, b, b.Accounts.LSAM, "DELETE", "/v1/jobs/once", nil), 204, "")
	again, _ := run(t, b, map[string]any{"id": "once", "dir": "/no/such"})
	audited(t, b, map[string]string{"kind": "job.ended", "decision_id": again.DecisionID})

	has("a job", tell(job.DecisionID), 0, "allowed", "launch of job once as payroll (account "+b.Accounts.Payroll.Name+")", "Asked by    "+b.Accounts.LSAM.Name,
		"Client      lsam", "For         jdoe in realm opcon", "OC5: ", "exit 3 after", "forget job once")
	if r := tell(job.DecisionID); strings.Contains(r.Out, "chdir.failed") {
		t.Errorf("another job of the same id is told of: %s", r.Out)
	}
	has("one that could not be started", tell(again.DecisionID), 0, "chdir.failed", "To change that:", "a directory that is there")
	a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"subject": map[string]any{"user": "mallory"}}))
	var p wire.Problem
	if err := json.Unmarshal(a.Body, &p); err != nil || p.DecisionID == "" {
		t.Fatalf("%s %v", a.Body, err)
	}
	has("a denial", tell(p.DecisionID), 0, "DENIED", "OC16: ", "Nothing was done.", "batchwarden explain --realm opcon --subject mallory --as payroll --client lsam -- COMMAND")
	var s struct {
		Decision struct{ Kind, Verdict, Code string }
		Later    []any
	}
	if r := tell(p.DecisionID, "--json"); json.Unmarshal([]byte(r.Out), &s) != nil || s.Decision.Kind != "launch" || s.Decision.Verdict != "deny" || s.Decision.Code != wire.PolicyDenied || len(s.Later) != 0 {
		t.Errorf("--json: %s%s", r.Out, r.Err)
	}
	a = call(t, b, b.Accounts.LSAM, "POST", "/v1/batch-users/payroll/retrieve", map[string]any{"realm": "opcon", "subject": map[string]any{"user": testbed.User}})
	if a.Status != 200 {
		t.Fatalf("retrieve: %d %s", a.Status, a.Body)
	}
	handed := audited(t, b, map[string]string{"kind": "retrieve.ended"})
	has("a retrieve", tell(handed.Text("decision_id")), 0, "password of payroll version 1", "handed out")
	has("none", tell("NOSUCHDECISION"), 1, "no decision NOSUCHDECISION is in the audit log")
	has("no id", tell("x y"), 64, "is not the id of a decision")
	has("who may not", b.CLI(b.Accounts.LSAM, "explain", "--decision", job.DecisionID, "--config", b.ConfigFile()), 77, "root and the service's own user")

	has("who used it", b.CLI(testbed.Root, "batch-users", "payroll", "--config", b.ConfigFile()), 0, "State       ready",
		"Granted in the last 30 days", "jdoe     lsam    opcon  2         1 ", "once once")
	has("who may not know", b.CLI(b.Accounts.LSAM, "batch-users", "payroll", "--config", b.ConfigFile()), 0, "State       ready",
		"Who used it is not shown: the audit log can be read by root and the service's own user")
	has("nobody did", b.CLI(testbed.Root, "batch-users", "reports", "--config", b.ConfigFile()), 0, "Nobody was granted its use in the last 30 days.")
}
