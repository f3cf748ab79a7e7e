package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"batchwarden/daemon/policy"
	"batchwarden/vault/admin"
	"batchwarden/vault/snapshot"
)

// TestAdminUsage: what can be found out before Vault is asked is exit code 64.
func TestAdminUsage(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("VAULT_TOKEN", "t")
	t.Setenv("VAULT_ADDR", "")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"admin"}, "admin is not a command by itself"},
		{[]string{"admin", "init"}, "VAULT_ADDR is not set"},
		{[]string{"admin", "init", "--print", "yaml"}, `--print "yaml" is not one of`},
		{[]string{"admin", "machine", "add"}, "requires at least 1 arg"},
	} {
		if code, out, errs := command(t, "", c.args...); code != 64 || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: got %d, %q, %q; want 64 and …%s…", c.args, code, out, errs, c.want)
		}
	}
	t.Setenv("VAULT_ADDR", "https://127.0.0.1:1")
	put := func(args ...string) []string {
		return append([]string{"admin", "batch-user", "put", "p", "--machine", "m", "--username", "u"}, args...)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"admin", "machine", "add", "-"}, "no machine is named"},
		{[]string{"admin", "machine", "add", "a/b"}, `"a/b" is no name`},
		{[]string{"admin", "group", "add", "g", "-"}, "no machine is named on the standard input"},
		{[]string{"admin", "batch-user", "put", "p", "--platform", "vms"}, `"vms" is no platform`},
		{put("--generate", "--password-stdin"), "not both"},
		{put("--generate=x"), "is not a length"},
		{put("--generate=3"), "enough for 64 bits"},
		{put("--password-stdin"), "standard input: not valid: password: is empty"},
		{[]string{"admin", "password", "p", "--machine", "m"}, "--stdin or --generate"},
		{[]string{"admin", "password", "p", "--machine", "m", "--generate", "--show", "--stdin"}, "not both"},
		{[]string{"admin", "grant", "--batch-user", "p", "--role", "r"}, "no realm is given"},
		{[]string{"admin", "grant", "--realm", "r", "--role", "r"}, "no batch user is given"},
		{[]string{"admin", "revoke", "--realm", "r", "--batch-user", "p"}, "one of --role, --user, --group"},
		{[]string{"admin", "revoke", "--realm", "r", "--batch-user", "p", "--role", "r", "--policy-scope", "x"}, `"x" is no scope`},
		{[]string{"admin", "policy", "put", "r", "/none", "--machine", "m"}, "cannot be read"},
		{[]string{"admin", "policy", "delete", "r", "--machine", "m"}, "say --yes"},
		{[]string{"admin", "review", "--format", "xml"}, "not one of text, json, csv"},
		{[]string{"admin", "review", "--agent", "x"}, "write it as REALM=NAME"},
		{[]string{"admin", "review", "--object", "wat=1"}, "object.wat: is not known"},
	} {
		code, out, errs := command(t, "", c.args...)
		if code != 64 || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: got %d, %q, %q; want 64 and …%s…", c.args, code, out, errs, c.want)
		}
	}
	for _, args := range [][]string{{"init"}, {"machine", "list"}, {"machine", "add", "m"}, {"batch-user", "put", "p", "--machine", "m", "--username", "u", "--kind", "none"}, {"review"}} {
		if code, _, errs := command(t, "", append([]string{"admin"}, args...)...); code != 69 || !strings.Contains(errs, "Vault does not answer") || !strings.Contains(errs, "Is VAULT_ADDR right") {
			t.Errorf("%q: got %d and %s, want 69 and what to do", args, code, errs)
		}
	}
	for _, format := range []string{"hcl", "terraform"} {
		if code, out, errs := command(t, "", "admin", "init", "--print", format); code != 0 || !strings.Contains(out, "identity.entity.metadata.machine") || errs != "" {
			t.Errorf("%s: got %d, %s%s", format, code, out, errs)
		}
	}
}

// TestPasswordFromTerminal: what is typed there would be seen.
func TestPasswordFromTerminal(t *testing.T) {
	terminal, err := os.Open("/dev/zero") // a character device, which is all that is looked at
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if _, err := (&secretFlags{stdin: true}).read(terminal); err == nil || !strings.Contains(err.Error(), "is a terminal") {
		t.Errorf("got %v, want that it is a terminal", err)
	}
	if got, err := (&secretFlags{stdin: true}).read(strings.NewReader(" a b \n\n")); err != nil || string(got) != " a b \n" {
		t.Errorf("got %q %v, want all but one line end", got, err)
	}
}

// TestAdminMany: names from the standard input; one that fails stops no other.
func TestAdminMany(t *testing.T) {
	v := startVault(t)
	v.admin("init")
	var names strings.Builder
	names.WriteString("# the farm\n\n")
	for i := range 40 {
		fmt.Fprintf(&names, "farm%02d\r\nfarm%02d\n", i, i)
	}
	out := v.piped(names.String(), "machine", "add", "-", "--group", "farm", "--wrap-ttl", "1h")
	if strings.Count(out, "\nfarm") != 40 || !strings.Contains(out, "40 machines, 40 changed") {
		t.Errorf("got %s, want forty wrapped tokens", out)
	}
	if out := v.piped(names.String(), "machine", "add", "-", "--group", "farm"); !strings.Contains(out, "40 machines, 0 changed") {
		t.Errorf("again: got %s, want nothing done", out)
	}
	code, out, errs := command(t, "", "admin", "machine", "rotate", "farm00", "nobody", "--json")
	var got struct{ Machines []machineDone }
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 || len(got.Machines) != 2 || got.Machines[0].WrappedSecretID == "" || got.Machines[1].Error == "" || !strings.Contains(errs, "1 of 2 machines failed") {
		t.Errorf("got %d, %s%s, want one rotated and one that failed", code, out, errs)
	}
	if out := v.once("machine", "rotate", "farm00", "--finish"); !strings.Contains(out, "delete") {
		t.Errorf("got %s, want the first secret_id destroyed", out)
	}
	v.once("group", "add", "more", "farm01", "farm02")
	v.once("group", "remove", "more", "farm01")
	if out := v.admin("group", "list"); !strings.Contains(out, "more   farm02\n") {
		t.Errorf("got %s, want farm02 alone in more", out)
	}
	v.refused(1, "still in use", "group", "remove", "more")
	v.refused(64, "a password is needed", "batch-user", "put", "p", "--group", "more", "--username", "p")
	v.refused(1, "not found", "machine", "rotate", "nobody")
	v.refused(1, "not found", "password", "nobody", "--group", "more", "--generate")
	v.admin("batch-user", "put", "p", "--group", "more", "--username", "p", "--generate")
	shown := v.admin("password", "p", "--group", "more", "--generate=40", "--show")
	if lines := strings.Split(strings.TrimSpace(shown), "\n"); len(lines[len(lines)-1]) != 40 {
		t.Errorf("got %s, want a password of 40 characters", shown)
	}
}

// TestAdminModels: grants and revocations of the other two models, and a document that somebody else changed.
func TestAdminModels(t *testing.T) {
	v := startVault(t)
	v.admin("init")
	v.admin("machine", "add", "db01")
	v.admin("batch-user", "put", "payroll", "--machine", "db01", "--username", "payroll", "--kind", "none", "--name", "automic=LOGIN.PAY", "--name", "uc=SF_PAY", "--service", "uc=FIN, HR")
	v.admin("policy", "put", "automic", write(t, "a.yaml", older), "--machine", "db01", "--yes")
	v.admin("policy", "put", "uc", write(t, "s.yaml", "model: stonebranch\nusers: {alice: {groups: [G]}, bob: {permissions: [{type: Credential, name: SF*, operations: [Execute]}]}}\ngroups: {G: {}}\n"), "--machine", "db01", "--yes")
	v.admin("policy", "put", "uc", write(t, "p.yaml", "model: stonebranch\n"), "--platform", "unix", "--yes")

	v.refused(1, "is not in the document", strings.Fields("grant --realm automic --batch-user payroll --user nobody")...)
	if out := v.admin(strings.Fields("grant --realm automic --batch-user payroll --user JDOE/DEPT")...); !strings.Contains(out, "can use") || !strings.Contains(out, "already, by groups.OPS.rows[0]") {
		t.Errorf("got %s, want that the group gives it", out)
	}
	v.refused(1, "can still use", strings.Fields("revoke --realm automic --batch-user payroll --user JDOE/DEPT")...)
	v.once(strings.Fields("revoke --realm automic --batch-user payroll --group OPS")...)
	v.once(strings.Fields("grant --realm automic --batch-user payroll --user NEW --new")...)

	v.refused(64, "several scopes have a policy", strings.Fields("grant --realm uc --batch-user payroll --group G")...)
	v.once(strings.Fields("grant --realm uc --batch-user payroll --group G --policy-scope machines/db01")...)
	review := v.admin("review", "--why", "--realm", "uc")
	for _, want := range []string{"alice    launch  groups.G.permissions[0]", "bob      launch  users.bob.permissions[0]"} {
		if !strings.Contains(review, want) {
			t.Errorf("got %s, want …%s…", review, want)
		}
	}
	if got := v.admin("review", "--realm", "automic", "--object", "name=PAY.RUN"); !strings.Contains(got, "Nobody can use") || !strings.Contains(got, "automic: can use means the whole launch") {
		t.Errorf("got %s, want that JDOE may run the job and not the login, and NEW the other way round", got)
	}
	if got := v.admin("review", "--realm", "automic"); !strings.Contains(got, " NEW ") || strings.Contains(got, "JDOE") {
		t.Errorf("got %s, want NEW, who alone has X on the login", got)
	}
	code, out, errs := command(t, "", "admin", "revoke", "--realm", "uc", "--batch-user", "payroll", "--user", "bob", "--policy-scope", "machines/db01", "--json")
	var got amended
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 || len(got.Still) != 1 || !strings.Contains(errs, "users.bob.permissions[0]") {
		t.Errorf("got %d, %s%s %v, want that the pattern gives it still", code, out, errs, err)
	}

	h, err := hold(t.Context(), v.client(), "machines/db01", "uc")
	if err != nil {
		t.Fatal(err)
	}
	v.once(strings.Fields("revoke --realm uc --batch-user payroll --group G --policy-scope machines/db01")...)
	changed := bytes.Replace(h.text, []byte("alice"), []byte("carol"), 1)
	if _, err = v.client().PutPolicy(t.Context(), h.scope, h.realm, h.name, changed, h.version); exitCode(ofVault(err)) != 1 || !strings.Contains(ofVault(err).Error(), "Repeat the command") {
		t.Errorf("got %v, want that somebody else changed it", err)
	}
	v.once("policy", "delete", "uc", "--platform", "unix", "--yes")
}

func (v *vault) client() *admin.Admin {
	v.Helper()
	c, err := (&adminFlags{}).connect()
	if err != nil {
		v.Fatal(err)
	}
	return c
}

// TestReviewOfManyIsQuick: 200 machines, 500 subjects and 100 batch users in each of three realms, where machines count.
func TestReviewOfManyIsQuick(t *testing.T) {
	const machines, users, batchUsers = 200, 500, 100
	docs := map[string]string{"opcon": `{"model":"opcon","roles":{`, "automic": `{"model":"automic","users":{`, "uc": `{"model":"stonebranch","users":{`}
	s := &scopeHeld{policies: map[string]*held{}, byDefault: map[string][]*snapshot.Held{}}
	for i := range users {
		comma := map[bool]string{true: ","}[i > 0]
		docs["opcon"] += fmt.Sprintf(`%s"r%d":{"machines":["m%d","m7"],"batch_users":{"unix":["g/b%d","g/b%d"]}}`, comma, i, i%machines, i%batchUsers, (i+1)%batchUsers)
		docs["automic"] += fmt.Sprintf(`%s"u%d":{"rows":[{"grp":"1","type":"LOGIN","name":"b%d","rights":"X"},{"grp":"2","type":"*","rights":"X"}]}`, comma, i, i%batchUsers)
		docs["uc"] += fmt.Sprintf(`%s"u%d":{"permissions":[{"type":"Credential","name":"b%d","operations":["Execute"]}]}`, comma, i, i%batchUsers)
	}
	r := &reviewer{flags: &reviewFlags{format: "csv"}, scopes: map[string]*scopeHeld{"platforms/unix": s}, answers: map[askedFor][]allowed{}}
	for realm, text := range docs {
		h := &held{scope: "platforms/unix", realm: realm, version: 1, text: []byte(text + "}}")}
		if err := h.compile(realm); err != nil {
			t.Fatal(err)
		}
		h.subjects = h.model.(policy.Reviewer).Subjects(h.engine)
		s.policies[realm] = h
	}
	for i := range batchUsers {
		s.users = append(s.users, admin.BatchUser{Scope: "platforms/unix", Name: fmt.Sprintf("b%d", i), Version: 1,
			Document: map[string]any{"username": "x", "kind": "none", "names": map[string]any{"opcon": fmt.Sprintf("g/b%d", i)}}})
	}
	var out, errs bytes.Buffer
	r.app = &app{out: &out, errs: &errs, now: time.Now}
	w, err := newReviewWriter(r.app, r.flags)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := range machines {
		name := fmt.Sprintf("m%d", i)
		r.scopes["machines/"+name] = &scopeHeld{byDefault: map[string][]*snapshot.Held{}}
		if err := r.machine(admin.Machine{Name: name, Platforms: []string{"unix"}}, w); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.end(r); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("%d questions answered in %v, %d lines", machines*batchUsers*(3*users+1), took, w.lines)
	// OpCon: each role has two batch users on its own machine and on m7; Role_ocadm has all everywhere.
	opcon := 2*users + 2*(users-countOf(users, machines, 7)) + machines*batchUsers
	if want := opcon + 2*machines*users; w.lines != want {
		t.Errorf("got %d lines, want %d", w.lines, want)
	}
	if took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}

// countOf is how many of n numbers are k modulo m.
func countOf(n, m, k int) int { return (n - k + m - 1) / m }

// TestAdminSealed: a server that is sealed is one that is not reachable, with another next step.
func TestAdminSealed(t *testing.T) {
	v := startVault(t)
	v.admin("init")
	if err := v.server.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.refused(69, "unseal it", "machine", "list")
}
